package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// DefaultTemplate fills in what a pod template leaves out.
func DefaultTemplate(t *corev1.PodTemplateSpec) { Default(&t.Spec) }

// Default fills in what a specification leaves out, in pods and templates alike.
func Default(spec *corev1.PodSpec) {
	setEmpty(&spec.DNSPolicy, corev1.DNSClusterFirst)
	setEmpty(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	setEmpty(&spec.SchedulerName, corev1.DefaultSchedulerName)
	setNil(&spec.TerminationGracePeriodSeconds, int64(corev1.DefaultTerminationGracePeriodSeconds))
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	// The service account has two names; the older one follows.
	if spec.ServiceAccountName == "" {
		spec.ServiceAccountName = spec.DeprecatedServiceAccount
	}
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	for i := range spec.InitContainers {
		defaultContainer(&spec.InitContainers[i])
	}
	for i := range spec.Containers {
		defaultContainer(&spec.Containers[i])
	}
	for i := range spec.EphemeralContainers {
		c := corev1.Container(spec.EphemeralContainers[i].EphemeralContainerCommon)
		defaultContainer(&c)
		spec.EphemeralContainers[i].EphemeralContainerCommon = corev1.EphemeralContainerCommon(c)
	}
	roundUp(spec.Overhead)
	if r := spec.Resources; r != nil {
		roundUp(r.Limits)
		roundUp(r.Requests)
	}
}

// setEmpty sets *p when it is the zero value.
func setEmpty[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// setNil points *p at v when it points nowhere.
func setNil[T any](p **T, v T) {
	if *p == nil {
		*p = ptr.To(v)
	}
}

// roundUp rounds quantities to thousandths, the finest the API keeps.
func roundUp(list corev1.ResourceList) {
	for name, q := range list {
		q.RoundUp(-3)
		list[name] = q
	}
}

func defaultHostPorts(containers []corev1.Container) {
	for i := range containers {
		for j := range containers[i].Ports {
			p := &containers[i].Ports[j]
			setEmpty(&p.HostPort, p.ContainerPort)
		}
	}
}

func defaultContainer(c *corev1.Container) {
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = pullPolicy(c.Image)
	}
	setEmpty(&c.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	setEmpty(&c.TerminationMessagePolicy, corev1.TerminationMessageReadFile)
	for i := range c.Ports {
		setEmpty(&c.Ports[i].Protocol, corev1.ProtocolTCP)
	}
	for i := range c.Env {
		if from := c.Env[i].ValueFrom; from != nil {
			if from.FieldRef != nil {
				setEmpty(&from.FieldRef.APIVersion, "v1")
			}
			if from.FileKeyRef != nil {
				setNil(&from.FileKeyRef.Optional, false)
			}
		}
	}
	roundUp(c.Resources.Limits)
	roundUp(c.Resources.Requests)
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if p != nil {
			defaultProbe(p)
		}
	}
	if l := c.Lifecycle; l != nil {
		for _, h := range []*corev1.LifecycleHandler{l.PostStart, l.PreStop} {
			if h != nil && h.HTTPGet != nil {
				defaultHTTPGet(h.HTTPGet)
			}
		}
	}
}

func defaultProbe(p *corev1.Probe) {
	setEmpty(&p.TimeoutSeconds, 1)
	setEmpty(&p.PeriodSeconds, 10)
	setEmpty(&p.SuccessThreshold, 1)
	setEmpty(&p.FailureThreshold, 3)
	if p.HTTPGet != nil {
		defaultHTTPGet(p.HTTPGet)
	}
	if p.GRPC != nil {
		setNil(&p.GRPC.Service, "")
	}
}

func defaultHTTPGet(g *corev1.HTTPGetAction) {
	setEmpty(&g.Path, "/")
	setEmpty(&g.Scheme, corev1.URISchemeHTTP)
}

func defaultVolume(v *corev1.Volume) {
	if v.VolumeSource == (corev1.VolumeSource{}) {
		v.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	switch s := &v.VolumeSource; {
	case s.Image != nil:
		if s.Image.PullPolicy == "" {
			s.Image.PullPolicy = pullPolicy(s.Image.Reference)
		}
	case s.HostPath != nil:
		setNil(&s.HostPath.Type, corev1.HostPathUnset)
	case s.Secret != nil:
		setNil(&s.Secret.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	case s.ConfigMap != nil:
		setNil(&s.ConfigMap.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	case s.DownwardAPI != nil:
		setNil(&s.DownwardAPI.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownward(s.DownwardAPI.Items)
	case s.Projected != nil:
		defaultProjected(s.Projected)
	case s.Ephemeral != nil && s.Ephemeral.VolumeClaimTemplate != nil:
		DefaultClaim(&s.Ephemeral.VolumeClaimTemplate.Spec)
	case s.ISCSI != nil:
		setEmpty(&s.ISCSI.ISCSIInterface, "default")
	case s.RBD != nil:
		setEmpty(&s.RBD.RBDPool, "rbd")
		setEmpty(&s.RBD.RadosUser, "admin")
		setEmpty(&s.RBD.Keyring, "/etc/ceph/keyring")
	case s.AzureDisk != nil:
		setNil(&s.AzureDisk.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setNil(&s.AzureDisk.Kind, corev1.AzureSharedBlobDisk)
		setNil(&s.AzureDisk.FSType, "ext4")
		setNil(&s.AzureDisk.ReadOnly, false)
	case s.ScaleIO != nil:
		setEmpty(&s.ScaleIO.StorageMode, "ThinProvisioned")
		setEmpty(&s.ScaleIO.FSType, "xfs")
	}
}

func defaultProjected(p *corev1.ProjectedVolumeSource) {
	setNil(&p.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
	for i := range p.Sources {
		if t := p.Sources[i].ServiceAccountToken; t != nil {
			setNil(&t.ExpirationSeconds, int64(3600))
		}
		if d := p.Sources[i].DownwardAPI; d != nil {
			defaultDownward(d.Items)
		}
	}
}

func defaultDownward(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		if items[i].FieldRef != nil {
			setEmpty(&items[i].FieldRef.APIVersion, "v1")
		}
	}
}

// DefaultClaim fills in what a claim for a volume leaves out.
func DefaultClaim(spec *corev1.PersistentVolumeClaimSpec) {
	setNil(&spec.VolumeMode, corev1.PersistentVolumeFilesystem)
	roundUp(spec.Resources.Limits)
	roundUp(spec.Resources.Requests)
}
