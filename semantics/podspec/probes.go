package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// lifeAndProbes judges what only containers have that stay.
func (j *judge) lifeAndProbes(c *corev1.Container, path *field.Path) {
	if l := c.Lifecycle; l != nil {
		if l.PostStart != nil {
			j.hook(l.PostStart, path.Child("lifecycle", "postStart"))
		}
		if l.PreStop != nil {
			j.hook(l.PreStop, path.Child("lifecycle", "preStop"))
		}
		if l.StopSignal != nil {
			j.stopSignal(path.Child("lifecycle", "stopSignal"))
		}
	}
	if p := c.LivenessProbe; p != nil {
		j.probe(p, path.Child("livenessProbe"))
		j.onlyOneSuccess(p, path.Child("livenessProbe"))
	}
	if p := c.ReadinessProbe; p != nil {
		at := path.Child("readinessProbe")
		j.probe(p, at)
		if p.TerminationGracePeriodSeconds != nil {
			j.add(field.Invalid(at.Child("terminationGracePeriodSeconds"), p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
		}
	}
	if p := c.StartupProbe; p != nil {
		j.probe(p, path.Child("startupProbe"))
		j.onlyOneSuccess(p, path.Child("startupProbe"))
	}
}

func (j *judge) stopSignal(path *field.Path) {
	if j.spec.OS == nil {
		j.add(field.Required(path, "may not be set for containers with empty `spec.os.name`"))
	}
}

func (j *judge) onlyOneSuccess(p *corev1.Probe, path *field.Path) {
	if p.SuccessThreshold != 1 {
		j.add(field.Invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1"))
	}
}

func (j *judge) probe(p *corev1.Probe, path *field.Path) {
	j.handler(&handler{exec: p.Exec, get: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, path)
	for _, f := range []struct {
		name  string
		value int32
	}{
		{"initialDelaySeconds", p.InitialDelaySeconds},
		{"timeoutSeconds", p.TimeoutSeconds},
		{"periodSeconds", p.PeriodSeconds},
		{"successThreshold", p.SuccessThreshold},
		{"failureThreshold", p.FailureThreshold},
	} {
		j.add(apivalidation.ValidateNonnegativeField(int64(f.value), path.Child(f.name))...)
	}
	if g := p.TerminationGracePeriodSeconds; g != nil && *g <= 0 {
		j.add(field.Invalid(path.Child("terminationGracePeriodSeconds"), *g, "must be greater than 0"))
	}
}

func (j *judge) hook(h *corev1.LifecycleHandler, path *field.Path) {
	j.handler(&handler{exec: h.Exec, get: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path)
}

// handler is what probes and hooks have in common.
type handler struct {
	exec  *corev1.ExecAction
	get   *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (j *judge) handler(h *handler, path *field.Path) {
	count := 0
	one := func(set bool, name string, judge func(at *field.Path)) {
		if !set {
			return
		}
		if count++; count > 1 {
			j.add(field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
			return
		}
		judge(path.Child(name))
	}
	one(h.exec != nil, "exec", func(at *field.Path) {
		if len(h.exec.Command) == 0 {
			j.required(at.Child("command"))
		}
	})
	one(h.get != nil, "httpGet", func(at *field.Path) { j.httpGet(h.get, at) })
	one(h.tcp != nil, "tcpSocket", func(at *field.Path) { j.portNumOrName(h.tcp.Port, at.Child("port")) })
	one(h.grpc != nil, "grpc", func(at *field.Path) { j.portNumOrName(intstr.FromInt32(h.grpc.Port), at.Child("port")) })
	one(h.sleep != nil, "sleep", func(at *field.Path) {
		if grace := j.spec.TerminationGracePeriodSeconds; grace != nil && (h.sleep.Seconds < 0 || h.sleep.Seconds > *grace) {
			j.add(field.Invalid(at, h.sleep.Seconds, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", *grace)))
		}
	})
	if count == 0 {
		j.add(field.Required(path, "must specify a handler type"))
	}
}

func (j *judge) httpGet(g *corev1.HTTPGetAction, path *field.Path) {
	if g.Path == "" {
		j.required(path.Child("path"))
	}
	j.portNumOrName(g.Port, path.Child("port"))
	oneOf(j, path.Child("scheme"), g.Scheme, corev1.URISchemeHTTP, corev1.URISchemeHTTPS)
	for _, h := range g.HTTPHeaders {
		j.say(path.Child("httpHeaders"), h.Name, validation.IsHTTPHeaderName(h.Name))
	}
}

func (j *judge) portNumOrName(port intstr.IntOrString, path *field.Path) {
	if port.Type == intstr.Int {
		j.say(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
		return
	}
	j.say(path, port.StrVal, validation.IsValidPortName(port.StrVal))
}

// restartRules judges a container's own policy of restarts.
func (j *judge) restartRules(c *corev1.Container, path *field.Path) {
	if c.RestartPolicy == nil {
		if len(c.RestartPolicyRules) > 0 {
			j.add(field.Required(path.Child("restartPolicy"), "must specify restartPolicy when restart rules are used"))
		}
	} else {
		oneOf(j, path.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyOnFailure, corev1.ContainerRestartPolicyNever)
		if *c.RestartPolicy == corev1.ContainerRestartPolicyAlways && len(c.RestartPolicyRules) > 0 {
			j.add(field.Invalid(path.Child("restartPolicyRules"), c.RestartPolicyRules, "restartPolicyRules are not supported with restartPolicy Always"))
		}
	}
	const most = 20
	if len(c.RestartPolicyRules) > most {
		j.add(field.TooMany(path.Child("restartPolicyRules"), len(c.RestartPolicyRules), most))
	}
	for i, r := range c.RestartPolicyRules {
		j.restartRule(&r, path.Child("restartPolicyRules").Index(i))
	}
}

func (j *judge) restartRule(r *corev1.ContainerRestartRule, path *field.Path) {
	mustBeOneOf(j, path.Child("action"), r.Action, corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
	at := path.Child("exitCodes")
	if r.ExitCodes == nil {
		j.add(field.Required(at, "must be specified"))
		return
	}
	mustBeOneOf(j, at.Child("operator"), r.ExitCodes.Operator, corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
	const most = 255
	if n := len(r.ExitCodes.Values); n == 0 {
		j.add(field.Required(at.Child("values"), "at least one value is required"))
	} else if n > most {
		j.add(field.TooMany(at.Child("values"), n, most))
	}
	seen := sets.New[int32]()
	for i, v := range r.ExitCodes.Values {
		if seen.Has(v) {
			j.add(field.Duplicate(at.Child("values").Index(i), v))
		}
		seen.Insert(v)
	}
}
