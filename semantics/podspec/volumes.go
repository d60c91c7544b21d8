package podspec

import (
	"fmt"
	"path"
	"reflect"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	badMode      = "must be a number between 0 and 0777 (octal), both inclusive"
	badPartition = "must be a number between 1 and 255, both inclusive, or empty"
)

func (j *judge) allVolumes(at *field.Path) {
	j.volumes = map[string]corev1.VolumeSource{}
	created := sets.New[string]()
	if j.meta != nil && j.meta.Name != "" {
		for i := range j.spec.Volumes {
			if v := &j.spec.Volumes[i]; v.Ephemeral != nil && v.Name != "" {
				created.Insert(j.meta.Name + "-" + v.Name)
			}
		}
	}
	for i := range j.spec.Volumes {
		v, at := &j.spec.Volumes[i], at.Index(i)
		before := len(j.errs)
		j.volume(v, at)
		if v.Name == "" {
			j.required(at.Child("name"))
		} else {
			j.say(at.Child("name"), v.Name, validation.IsDNS1123Label(v.Name))
		}
		if _, ok := j.volumes[v.Name]; ok {
			j.add(field.Duplicate(at.Child("name"), v.Name))
		}
		if len(j.errs) == before {
			j.volumes[v.Name] = v.VolumeSource
		}
		if c := v.PersistentVolumeClaim; c != nil && created.Has(c.ClaimName) {
			j.add(field.Invalid(at.Child("persistentVolumeClaim", "claimName"), c.ClaimName, "must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	if j.isPod() && j.spec.ServiceAccountName == "" {
		j.tokensNeedAccount(at)
	}
}

func (j *judge) tokensNeedAccount(at *field.Path) {
	for i := range j.spec.Volumes {
		p := j.spec.Volumes[i].Projected
		if p == nil {
			continue
		}
		for k := range p.Sources {
			if p.Sources[k].ServiceAccountToken != nil {
				j.add(field.Forbidden(at.Index(i).Child("projected", "sources").Index(k).Child("serviceAccountToken"), "must not be specified when serviceAccountName is not set"))
			}
		}
	}
}

// volume judges the one source a volume must have.
func (j *judge) volume(v *corev1.Volume, at *field.Path) {
	source := reflect.ValueOf(v.VolumeSource)
	// What is empty is not to blame when there is more.
	found := v.EmptyDir != nil
	if found {
		j.source(v, v.EmptyDir, at, at.Child("emptyDir"))
	}
	for i := range source.NumField() {
		if source.Field(i).IsNil() || source.Type().Field(i).Name == "EmptyDir" {
			continue
		}
		name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
		if found {
			j.add(field.Forbidden(at.Child(name), "may not specify more than 1 volume type"))
			continue
		}
		found = true
		j.source(v, source.Field(i).Interface(), at, at.Child(name))
	}
	if !found {
		j.add(field.Required(at, "must specify a volume type"))
	}
}

func (j *judge) source(v *corev1.Volume, source any, volume, at *field.Path) {
	switch s := source.(type) {
	case *corev1.EmptyDirVolumeSource:
		if s.SizeLimit != nil && s.SizeLimit.Sign() < 0 {
			j.add(field.Forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity"))
		}
	case *corev1.HostPathVolumeSource:
		if s.Path == "" {
			j.required(at.Child("path"))
			return
		}
		j.noBacksteps(s.Path, at.Child("path"))
		if s.Type != nil {
			oneOf(j, at.Child("type"), *s.Type, corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev, corev1.HostPathDirectory,
				corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
		}
	case *corev1.SecretVolumeSource:
		j.filled(s, at, "SecretName")
		j.files(s.DefaultMode, s.Items, at)
	case *corev1.ConfigMapVolumeSource:
		if s.Name == "" {
			j.required(at.Child("name"))
		}
		j.files(s.DefaultMode, s.Items, at)
	case *corev1.DownwardAPIVolumeSource:
		j.mode(s.DefaultMode, at.Child("defaultMode"))
		for i := range s.Items {
			j.downwardFile(&s.Items[i], at)
		}
	case *corev1.ProjectedVolumeSource:
		j.mode(s.DefaultMode, at.Child("defaultMode"))
		j.projected(s, at)
	case *corev1.PersistentVolumeClaimVolumeSource:
		j.filled(s, at, "ClaimName")
	case *corev1.EphemeralVolumeSource:
		j.ephemeralVolume(v, s, volume, at)
	case *corev1.ImageVolumeSource:
		if j.isPod() && s.Reference == "" {
			j.required(at.Child("reference"))
		}
		mustBeOneOf(j, at.Child("pullPolicy"), s.PullPolicy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
	case *corev1.CSIVolumeSource:
		if s.Driver == "" {
			j.required(at.Child("driver"))
		} else {
			j.say(at.Child("driver"), s.Driver, validation.IsDNS1123Subdomain(strings.ToLower(s.Driver)))
		}
		if r := s.NodePublishSecretRef; r != nil {
			if r.Name == "" {
				j.required(at.Child("nodePublishSecretRef", "name"))
			} else {
				j.say(at.Child("name"), r.Name, apivalidation.NameIsDNSSubdomain(r.Name, false))
			}
		}
	default:
		j.farVolume(v, source, at)
	}
}

// farVolume judges storage that other machines provide.
func (j *judge) farVolume(v *corev1.Volume, source any, at *field.Path) {
	switch s := source.(type) {
	case *corev1.NFSVolumeSource:
		j.filled(s, at, "Server", "Path")
		if !path.IsAbs(s.Path) {
			j.add(field.Invalid(at.Child("path"), s.Path, "must be an absolute path"))
		}
	case *corev1.GitRepoVolumeSource:
		j.filled(s, at, "Repository")
		j.descending(s.Directory, at.Child("directory"))
	case *corev1.ISCSIVolumeSource:
		j.iscsi(v, s, at)
	case *corev1.FCVolumeSource:
		switch {
		case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
			j.add(field.Required(at.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"))
		case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
			j.add(field.Invalid(at.Child("targetWWNs"), s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
		case len(s.TargetWWNs) > 0 && s.Lun == nil:
			j.add(field.Required(at.Child("lun"), "lun is required if targetWWNs is specified"))
		case len(s.TargetWWNs) > 0 && (*s.Lun < 0 || *s.Lun > 255):
			j.add(field.Invalid(at.Child("lun"), s.Lun, validation.InclusiveRangeError(0, 255)))
		}
	case *corev1.GCEPersistentDiskVolumeSource:
		j.filled(s, at, "PDName")
		j.partition(s.Partition, at)
	case *corev1.AWSElasticBlockStoreVolumeSource:
		j.filled(s, at, "VolumeID")
		j.partition(s.Partition, at)
	case *corev1.FlexVolumeSource:
		j.filled(s, at, "Driver")
		for k := range s.Options {
			owner, _, _ := strings.Cut(k, "/")
			if o := "." + strings.ToLower(owner); strings.HasSuffix(o, ".kubernetes.io") || strings.HasSuffix(o, ".k8s.io") {
				j.add(field.Invalid(at.Child("options").Key(k), k, "kubernetes.io and k8s.io namespaces are reserved"))
			}
		}
	case *corev1.GlusterfsVolumeSource:
		j.filled(s, at, "EndpointsName", "Path")
	case *corev1.RBDVolumeSource:
		j.filled(s, at, "CephMonitors", "RBDImage")
	case *corev1.CephFSVolumeSource:
		j.filled(s, at, "Monitors")
	case *corev1.CinderVolumeSource:
		j.filled(s, at, "VolumeID")
	case *corev1.AzureFileVolumeSource:
		j.filled(s, at, "SecretName", "ShareName")
	case *corev1.AzureDiskVolumeSource:
		j.filled(s, at, "DiskName", "DataDiskURI")
	case *corev1.VsphereVirtualDiskVolumeSource:
		j.filled(s, at, "VolumePath")
	case *corev1.PhotonPersistentDiskVolumeSource:
		j.filled(s, at, "PdID")
	case *corev1.PortworxVolumeSource:
		j.filled(s, at, "VolumeID")
	case *corev1.ScaleIOVolumeSource:
		j.filled(s, at, "Gateway", "System", "VolumeName")
	case *corev1.QuobyteVolumeSource:
		j.filled(s, at, "Registry", "Volume")
	case *corev1.FlockerVolumeSource:
		if s.DatasetName == "" && s.DatasetUUID == "" {
			j.add(field.Required(at, "one of datasetName and datasetUUID is required"))
		}
	}
}

// filled demands that fields of a struct, named as in Go, are not empty.
func (j *judge) filled(obj any, at *field.Path, names ...string) {
	v := reflect.Indirect(reflect.ValueOf(obj))
	for _, name := range names {
		if f, ok := v.Type().FieldByName(name); ok && v.FieldByIndex(f.Index).IsZero() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			j.required(at.Child(tag))
		}
	}
}

func (j *judge) partition(n int32, at *field.Path) {
	if n < 0 || n > 255 {
		j.add(field.Invalid(at.Child("partition"), n, badPartition))
	}
}

func (j *judge) mode(m *int32, at *field.Path) {
	if m != nil && (*m > 0o777 || *m < 0) {
		j.add(field.Invalid(at, *m, badMode))
	}
}

func (j *judge) files(mode *int32, items []corev1.KeyToPath, at *field.Path) {
	j.mode(mode, at.Child("defaultMode"))
	for i := range items {
		j.keyToPath(&items[i], at.Child("items").Index(i))
	}
}

func (j *judge) keyToPath(k *corev1.KeyToPath, at *field.Path) {
	j.filled(k, at, "Key", "Path")
	j.localPath(k.Path, at.Child("path"))
	j.mode(k.Mode, at.Child("mode"))
}

func (j *judge) downwardFile(f *corev1.DownwardAPIVolumeFile, at *field.Path) {
	j.filled(f, at, "Path")
	j.localPath(f.Path, at.Child("path"))
	switch {
	case f.FieldRef != nil:
		j.fieldRef(f.FieldRef, fileFields, at.Child("fieldRef"))
		if f.ResourceFieldRef != nil {
			j.add(field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		j.resourceRef(f.ResourceFieldRef, true, at.Child("resourceFieldRef"))
	default:
		j.add(field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	j.mode(f.Mode, at.Child("mode"))
}

func (j *judge) ephemeralVolume(v *corev1.Volume, s *corev1.EphemeralVolumeSource, volume, at *field.Path) {
	t := s.VolumeClaimTemplate
	if t == nil {
		j.required(at.Child("volumeClaimTemplate"))
	} else {
		j.add(Claim(&t.Spec, at.Child("volumeClaimTemplate", "spec"))...)
	}
	if j.meta != nil && j.meta.Name != "" && v.Name != "" {
		claim := j.meta.Name + "-" + v.Name
		for _, m := range apivalidation.NameIsDNSSubdomain(claim, false) {
			j.add(field.Invalid(volume.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", claim, m)))
		}
	}
}

func (j *judge) iscsi(v *corev1.Volume, s *corev1.ISCSIVolumeSource, at *field.Path) {
	j.filled(s, at, "TargetPortal", "IQN")
	known := func(name string) bool {
		return strings.HasPrefix(name, "iqn") || strings.HasPrefix(name, "eui") || strings.HasPrefix(name, "naa")
	}
	if s.IQN != "" && !known(s.IQN) {
		j.add(field.Invalid(at.Child("iqn"), s.IQN, "must be valid format starting with iqn, eui, or naa"))
	}
	if s.Lun < 0 || s.Lun > 255 {
		j.add(field.Invalid(at.Child("lun"), s.Lun, validation.InclusiveRangeError(0, 255)))
	}
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		j.required(at.Child("secretRef"))
	}
	if s.InitiatorName == nil {
		return
	}
	if !known(*s.InitiatorName) {
		j.add(field.Invalid(at.Child("initiatorname"), *s.InitiatorName, "must be valid format starting with iqn, eui, or naa"))
	}
	if len(v.Name+":"+s.TargetPortal) > 64 {
		j.add(field.Invalid(at.Child("name"), v.Name, "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."))
	}
}

// lowerFirst spells a Go name as JSON does.
func lowerFirst(name string) string {
	runes := []rune(name)
	runes[0] = unicode.ToLower(runes[0])
	return string(runes)
}
