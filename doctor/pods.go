package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// slow is an answer of DNS that somebody will complain of.
const slow = time.Second

func checkDNS(f *Facts, p pen) {
	c := f.Cluster
	if c == nil || c.Unread["services"] != nil {
		return
	}
	const labels = "k8s-app=kube-dns"
	i := slices.IndexFunc(c.Services, func(s *corev1.Service) bool {
		return s.Namespace == metav1.NamespaceSystem && s.Labels["k8s-app"] == "kube-dns"
	})
	if i < 0 {
		p.warn("cluster DNS", "kubeadm init phase addon coredns (sampan server makes it when it starts)", "there is no service with the label %s in kube-system: pods find no service by its name", labels)
		return
	}
	service := c.Services[i]
	var of *appsv1.Deployment
	for _, d := range c.Deployments {
		if d.Namespace == metav1.NamespaceSystem && d.Labels["k8s-app"] == "kube-dns" {
			of = d
		}
	}
	switch ready := c.ready(service.Namespace, service.Name); {
	case of != nil && of.Spec.Replicas != nil && *of.Spec.Replicas == 0:
		p.fail("cluster DNS", "kubectl -n kube-system scale deployment "+of.Name+" --replicas=2", "deployment %s is scaled to 0: pods find no service by its name", of.Name)
		return
	case ready == 0:
		p.fail("cluster DNS", "kubectl -n kube-system describe pods -l "+labels, "service %s has no pod that is ready: pods find no service by its name", service.Name)
		return
	case of != nil && of.Spec.Replicas != nil && int(of.Status.ReadyReplicas) < int(*of.Spec.Replicas):
		p.warn("cluster DNS", "kubectl -n kube-system describe pods -l "+labels, "%d of %d pods of deployment %s are ready", of.Status.ReadyReplicas, *of.Spec.Replicas, of.Name)
	}
	for _, name := range sorted(c.Answers) {
		if err := c.Answers[name]; err != nil {
			p.fail("cluster DNS", "kubectl -n kube-system logs "+name+"; kubectl -n kube-system delete pod "+name, "pod %s is Ready and does not answer: %v", name, err)
		}
	}
	if m := f.Machine; m != nil && m.Kind != NoNode {
		switch {
		case m.DNSErr != nil:
			p.fail("cluster DNS", "see that the service's address is served here: nft list tables | grep -e sampan -e kube; kubectl -n kube-system get endpointslices -l kubernetes.io/service-name="+service.Name, "this node's own question to %s got no answer: %v", service.Spec.ClusterIP, m.DNSErr)
		case m.DNS > slow:
			p.warn("cluster DNS", "kubectl -n kube-system scale deployment coredns --replicas=3; kubectl -n kube-system logs -l "+labels, "an answer from %s took %s", service.Spec.ClusterIP, m.DNS.Round(10*time.Millisecond))
		}
	}
}

// checkCreation tells of controllers that cannot make their pods.
func checkCreation(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	told := map[string]bool{}
	tell := func(kind, namespace, name, message string) {
		if key := kind + namespace + name; !told[key] {
			told[key] = true
			p.fail(strings.ToLower(kind)+" "+namespace+"/"+name, creationMend(namespace, message), "its pods cannot be made: %s", message)
		}
	}
	for _, d := range f.Cluster.Deployments {
		for _, c := range d.Status.Conditions {
			switch {
			case c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue:
				tell("Deployment", d.Namespace, d.Name, c.Message)
			case c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse:
				p.warn("deployment "+d.Namespace+"/"+d.Name, fmt.Sprintf("kubectl -n %s rollout undo deployment %s, or see kubectl -n %[1]s describe deployment %[2]s", d.Namespace, d.Name), "its rollout goes no further (%s): %s", c.Reason, c.Message)
			}
		}
	}
	for _, e := range f.Cluster.Events {
		o := e.InvolvedObject
		if e.Reason == "FailedCreate" && slices.Contains([]string{"StatefulSet", "DaemonSet", "Job"}, o.Kind) && f.Cluster.Time.Sub(when(e)) < 10*time.Minute {
			tell(o.Kind, o.Namespace, o.Name, e.Message)
		}
	}
}

// creationMend is the command for what refused a pod.
func creationMend(namespace, message string) string {
	switch {
	case strings.Contains(message, "exceeded quota"):
		return "kubectl -n " + namespace + " describe resourcequota; raise it with kubectl -n " + namespace + " edit resourcequota"
	case strings.Contains(message, "failed calling webhook"):
		return "see the webhook's finding above; kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations"
	case strings.Contains(message, "violates PodSecurity"):
		return "kubectl label namespace " + namespace + " pod-security.kubernetes.io/enforce=privileged --overwrite, or mend the pod's securityContext"
	case strings.Contains(message, "serviceaccount"):
		return "kubectl -n " + namespace + " create serviceaccount NAME"
	}
	return "kubectl -n " + namespace + " get events --field-selector reason=FailedCreate"
}

// trouble is what is wrong with a pod.
type trouble struct {
	severity     Severity
	reason, what string
	mend         string
}

// group is the pods of one owner with the same trouble.
type group struct {
	first *corev1.Pod
	trouble
	pods int
}

func checkPods(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	groups := map[string]*group{}
	for _, pod := range f.Cluster.Pods {
		t, ok := f.trouble(pod)
		if !ok {
			continue
		}
		owner := pod.Name
		if o := metav1.GetControllerOf(pod); o != nil {
			owner = o.Kind + "/" + o.Name
		}
		key := pod.Namespace + "/" + owner + "/" + t.reason
		if groups[key] == nil {
			groups[key] = &group{pod, t, 0}
		}
		groups[key].pods++
	}
	list := slices.SortedFunc(func(yield func(*group) bool) {
		for _, g := range groups {
			if !yield(g) {
				return
			}
		}
	}, func(a, b *group) int {
		return cmp.Or(cmp.Compare(a.first.Namespace, b.first.Namespace), cmp.Compare(a.first.Name, b.first.Name), cmp.Compare(a.reason, b.reason))
	})
	for _, g := range list {
		about := "pod " + g.first.Namespace + "/" + g.first.Name
		if g.pods > 1 {
			about += fmt.Sprintf(" and %d more of its owner", g.pods-1)
		}
		p.write(g.severity, about, g.mend, g.reason+": "+g.what)
	}
}

// patience is how long a pod may take to start before it is told of; settling how
// long it may fit nowhere, as in a cluster whose nodes become ready one by one.
const (
	patience = 2 * time.Minute
	settling = 15 * time.Second
)

// trouble says what is wrong with a pod, if something is.
func (f *Facts) trouble(pod *corev1.Pod) (trouble, bool) {
	c, ns := f.Cluster, pod.Namespace
	in := "kubectl -n " + ns + " "
	if pod.DeletionTimestamp != nil {
		return f.leaving(pod)
	}
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return trouble{}, false
	}
	for _, k := range pod.Status.Conditions {
		if k.Type == corev1.PodScheduled && k.Status == corev1.ConditionFalse {
			switch {
			case k.Reason == corev1.PodReasonSchedulingGated:
				return trouble{Note, k.Reason, k.Message, in + "get pod " + pod.Name + " -o jsonpath={.spec.schedulingGates}"}, true
			case c.Time.Sub(k.LastTransitionTime.Time) < settling:
				return trouble{}, false
			default:
				return trouble{Error, "Pending", k.Message, schedulingMend(ns, pod.Name, k.Message)}, true
			}
		}
	}
	for _, s := range append(slices.Clone(pod.Status.InitContainerStatuses), pod.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil {
			if t, ok := waiting(pod, s, w); ok {
				return t, true
			}
		}
	}
	if c.Time.Sub(pod.CreationTimestamp.Time) < patience {
		return trouble{}, false
	}
	switch {
	case pod.Spec.NodeName == "":
		return trouble{Error, "Pending", "the scheduler has not looked at it", "kubectl get componentstatuses; is its schedulerName " + pod.Spec.SchedulerName + " running?"}, true
	case pod.Status.Phase == corev1.PodPending:
		if e := c.latest("Pod", ns, pod.Name, "FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedMapVolume"); e != nil {
			return trouble{Error, e.Reason, e.Message, mountMend(in, pod, e)}, true
		}
		return trouble{Error, "ContainerCreating", "it has not started for " + ago(c.Time.Sub(pod.CreationTimestamp.Time)), in + "describe pod " + pod.Name}, true
	}
	return trouble{}, false
}

// waiting is what a container waits for in vain.
func waiting(pod *corev1.Pod, s corev1.ContainerStatus, w *corev1.ContainerStateWaiting) (trouble, bool) {
	in := "kubectl -n " + pod.Namespace + " "
	switch w.Reason {
	case "ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable":
		return trouble{Error, w.Reason, orElse(w.Message, "image "+s.Image), fmt.Sprintf("see that image %s exists and that its registry is reached with the pod's imagePullSecrets; without a registry: sampan image import FILE.tar", s.Image)}, true
	case "CrashLoopBackOff":
		what, mend := fmt.Sprintf("container %s was started again %d times", s.Name, s.RestartCount), in+"logs "+pod.Name+" -c "+s.Name+" --previous"
		if t := s.LastTerminationState.Terminated; t != nil {
			what += fmt.Sprintf("; it ended with %d (%s) %s", t.ExitCode, t.Reason, t.Message)
			if t.Reason == "OOMKilled" {
				mend = in + "set resources … --limits=memory=…: it used more than its limit allows"
			}
		}
		return trouble{Error, w.Reason, what, mend}, true
	case "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError":
		return trouble{Error, w.Reason, orElse(w.Message, "container "+s.Name), in + "describe pod " + pod.Name + "; a missing ConfigMap or Secret: " + in + "create configmap|secret …"}, true
	}
	return trouble{}, false
}

// leaving is what keeps a deleted pod from going.
func (f *Facts) leaving(pod *corev1.Pod) (trouble, bool) {
	since := f.Cluster.Time.Sub(pod.DeletionTimestamp.Time) // which is when its grace ends
	if since < time.Minute {
		return trouble{}, false
	}
	in := "kubectl -n " + pod.Namespace + " "
	i := slices.IndexFunc(f.Cluster.Nodes, func(n *corev1.Node) bool { return n.Name == pod.Spec.NodeName })
	switch {
	case len(pod.Finalizers) > 0:
		return trouble{Error, "Terminating", fmt.Sprintf("for %s: it has finalizers %v", ago(since), pod.Finalizers), in + "patch pod " + pod.Name + ` --type=merge -p '{"metadata":{"finalizers":null}}' if their controller is gone`}, true
	case i >= 0:
		if c := condition(f.Cluster.Nodes[i], corev1.NodeReady); c != nil && c.Status == corev1.ConditionUnknown {
			return trouble{Error, "Terminating", fmt.Sprintf("for %s: its node %s is lost, and it is not known whether it still runs", ago(since), pod.Spec.NodeName),
				fmt.Sprintf("bring the node back, or, if it is off for certain: kubectl taint node %s node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", pod.Spec.NodeName)}, true
		}
		return trouble{Error, "Terminating", fmt.Sprintf("for %s on node %s", ago(since), pod.Spec.NodeName), "on " + pod.Spec.NodeName + ": systemctl restart kubelet; " + in + "delete pod " + pod.Name + " --force"}, true
	}
	return trouble{Error, "Terminating", fmt.Sprintf("for %s: its node %s is gone", ago(since), pod.Spec.NodeName), in + "delete pod " + pod.Name + " --force"}, true
}

// schedulingMend is the command for why a pod fits nowhere.
func schedulingMend(namespace, name, message string) string {
	pod := "kubectl -n " + namespace + " "
	switch {
	case strings.Contains(message, "no nodes available"):
		return "kubeadm token create --print-join-command and run that on a machine"
	case strings.Contains(message, "node.kubernetes.io/not-ready") || strings.Contains(message, "node.kubernetes.io/unreachable"):
		return "bring the nodes to Ready: see the nodes' findings"
	case strings.Contains(message, "node-role.kubernetes.io/control-plane"):
		return "kubectl taint nodes --all node-role.kubernetes.io/control-plane-, or join a worker"
	case strings.Contains(message, "unschedulable"):
		return "kubectl uncordon NODE"
	case strings.Contains(message, "Insufficient"):
		return "kubectl describe nodes | grep -A 8 'Allocated resources'; lower its requests, or join another node"
	case strings.Contains(message, "PersistentVolumeClaim") || strings.Contains(message, "persistentvolumeclaim"):
		return pod + "get pvc; see the claims' findings"
	case strings.Contains(message, "affinity") || strings.Contains(message, "selector"):
		return "kubectl get nodes --show-labels; " + pod + "get pod " + name + " -o jsonpath={.spec.nodeSelector}{.spec.affinity}"
	case strings.Contains(message, "untolerated taint"):
		return "kubectl get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints; kubectl taint node NODE KEY-"
	}
	return pod + "describe pod " + name
}

// mountMend is the command for what keeps a pod's volumes or sandbox from being made.
func mountMend(in string, pod *corev1.Pod, e *corev1.Event) string {
	switch {
	case strings.Contains(e.Message, "subnet.env"):
		return "kubectl -n kube-flannel get pods -o wide --field-selector spec.nodeName=" + pod.Spec.NodeName + " (flannel has not run there since it started)"
	case strings.Contains(e.Message, "failed to find plugin"):
		return "on " + pod.Spec.NodeName + ": sampan install (network plugins into /opt/cni/bin)"
	case strings.Contains(e.Message, "no IP addresses available"):
		return "on " + pod.Spec.NodeName + ": ls /var/lib/cni/networks/*; its range is full: fewer pods, or a larger --node-cidr-mask-size"
	case strings.Contains(e.Message, "not found"):
		return in + "get configmaps,secrets,pvc: it names one that is missing"
	}
	return in + "describe pod " + pod.Name
}

// checkClaims tells why volumes are not there.
func checkClaims(f *Facts, p pen) {
	if f.Cluster == nil {
		return
	}
	defaults := slices.ContainsFunc(f.Cluster.Classes, func(c *storageClass) bool {
		return c.Annotations["storageclass.kubernetes.io/is-default-class"] == "true"
	})
	for _, v := range f.Cluster.Claims {
		about, in := "pvc "+v.Namespace+"/"+v.Name, "kubectl -n "+v.Namespace+" "
		if v.Status.Phase == corev1.ClaimLost {
			p.fail(about, in+"delete pvc "+v.Name+" and restore its data from a backup", "Lost: volume %s is gone", v.Spec.VolumeName)
			continue
		}
		if v.Status.Phase != corev1.ClaimPending || f.Cluster.Time.Sub(v.CreationTimestamp.Time) < time.Minute/2 {
			continue
		}
		class := ""
		if v.Spec.StorageClassName != nil {
			class = *v.Spec.StorageClassName
		}
		i := slices.IndexFunc(f.Cluster.Classes, func(c *storageClass) bool { return c.Name == class })
		said := f.Cluster.latest("PersistentVolumeClaim", v.Namespace, v.Name)
		switch {
		case v.Spec.StorageClassName == nil && !defaults:
			p.fail(about, "kubectl annotate storageclass NAME storageclass.kubernetes.io/is-default-class=true, or make a PersistentVolume for it", "Pending: it names no storage class and none is the default")
		case class != "" && i < 0 && f.Cluster.Unread["storageclasses"] == nil:
			p.fail(about, "kubectl get storageclass; make "+class+" or have the claim name another", "Pending: storage class %s does not exist", class)
		case said != nil && said.Reason == "WaitForFirstConsumer":
			p.note(about, "", "Pending until a pod uses it")
		case said != nil:
			p.fail(about, in+"describe pvc "+v.Name+"; kubectl get pods -A | grep -e csi -e provisioner", "Pending (%s): %s", said.Reason, said.Message)
		default:
			p.fail(about, in+"describe pvc "+v.Name+"; kubectl get pv", "Pending: no volume fits it and nobody makes one")
		}
	}
}
