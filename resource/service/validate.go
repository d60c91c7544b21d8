package service

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const onlyBalancer = "may only be used when `type` is 'LoadBalancer'"

func validate(next, prev *corev1.Service) (errs field.ErrorList) {
	spec := field.NewPath("spec")
	if prev != nil {
		errs = append(errs, validateIPChange(next, prev)...)
		errs = append(errs, validateFamilyChange(next, prev)...)
		errs = append(errs, validateClassChange(next, prev)...)
		if needsHealthPort(next) && needsHealthPort(prev) && next.Spec.HealthCheckNodePort != prev.Spec.HealthCheckNodePort {
			errs = append(errs, field.Forbidden(spec.Child("healthCheckNodePort"), "field is immutable"))
		}
	}
	errs = append(errs, validateShape(next, spec)...)
	errs = append(errs, validatePorts(next, spec.Child("ports"))...)
	if next.Spec.Selector != nil {
		errs = append(errs, metavalidation.ValidateLabels(next.Spec.Selector, spec.Child("selector"))...)
	}
	errs = append(errs, validateAffinity(&next.Spec, spec)...)
	errs = append(errs, validateIPs(next)...)
	errs = append(errs, validateExternalIPs(next, prev, spec.Child("externalIPs"))...)
	errs = append(errs, validateSupported(next.Spec.Type, spec.Child("type"), corev1.ServiceTypeClusterIP,
		corev1.ServiceTypeExternalName, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeNodePort)...)
	errs = append(errs, validateDuplicates(&next.Spec, spec.Child("ports"))...)
	errs = append(errs, validateBalancer(next, spec)...)
	return append(errs, validateTraffic(next, spec)...)
}

// validateSupported wants a value, and one of those listed.
func validateSupported[T ~string](value T, path *field.Path, supported ...T) field.ErrorList {
	if value == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	for _, s := range supported {
		if value == s {
			return nil
		}
	}
	return field.ErrorList{field.NotSupported(path, value, supported)}
}

// validateShape judges what the type asks for.
func validateShape(s *corev1.Service, spec *field.Path) (errs field.ErrorList) {
	if len(s.Spec.Ports) == 0 && !headless(s) && s.Spec.Type != corev1.ServiceTypeExternalName {
		errs = append(errs, field.Required(spec.Child("ports"), ""))
	}
	noHeadless := func() {
		if headless(s) {
			errs = append(errs, field.Invalid(spec.Child("clusterIPs").Index(0), s.Spec.ClusterIPs[0],
				fmt.Sprintf("may not be set to 'None' for %s services", s.Spec.Type)))
		}
	}
	switch s.Spec.Type {
	case corev1.ServiceTypeLoadBalancer:
		for i := range s.Spec.Ports {
			// This port of every node is the kubelet's.
			if s.Spec.Ports[i].Port == 10250 {
				errs = append(errs, field.Invalid(spec.Child("ports").Index(i), s.Spec.Ports[i].Port,
					"may not expose port 10250 externally since it is used by kubelet"))
			}
		}
		noHeadless()
	case corev1.ServiceTypeNodePort:
		noHeadless()
	case corev1.ServiceTypeExternalName:
		errs = append(errs, validateExternalName(&s.Spec, spec)...)
	}
	return errs
}

func validateExternalName(s *corev1.ServiceSpec, spec *field.Path) (errs field.ErrorList) {
	const unset = "may not be set for ExternalName services"
	if len(s.ClusterIPs) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("clusterIPs"), unset))
	}
	if len(s.IPFamilies) > 0 {
		errs = append(errs, field.Forbidden(spec.Child("ipFamilies"), unset))
	}
	if s.IPFamilyPolicy != nil {
		errs = append(errs, field.Forbidden(spec.Child("ipFamilyPolicy"), unset))
	}
	// A trailing dot says that the name is fully qualified.
	name := strings.TrimSuffix(s.ExternalName, ".")
	if name == "" {
		return append(errs, field.Required(spec.Child("externalName"), ""))
	}
	for _, msg := range validation.IsDNS1123Subdomain(name) {
		errs = append(errs, field.Invalid(spec.Child("externalName"), name, msg))
	}
	return errs
}

func validatePorts(s *corev1.Service, path *field.Path) (errs field.ErrorList) {
	names := map[string]bool{}
	for i := range s.Spec.Ports {
		p, at := &s.Spec.Ports[i], path.Index(i)
		switch {
		case p.Name == "" && len(s.Spec.Ports) > 1:
			errs = append(errs, field.Required(at.Child("name"), ""))
		case p.Name != "":
			for _, msg := range validation.IsDNS1123Label(p.Name) {
				errs = append(errs, field.Invalid(at.Child("name"), p.Name, msg))
			}
			if names[p.Name] {
				errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
			}
			names[p.Name] = true
		}
		for _, msg := range validation.IsValidPortNum(int(p.Port)) {
			errs = append(errs, field.Invalid(at.Child("port"), p.Port, msg))
		}
		errs = append(errs, validateSupported(p.Protocol, at.Child("protocol"), corev1.ProtocolSCTP, corev1.ProtocolTCP, corev1.ProtocolUDP)...)
		errs = append(errs, validateTarget(p.TargetPort, at.Child("targetPort"))...)
		if p.AppProtocol != nil {
			for _, msg := range validation.IsQualifiedName(*p.AppProtocol) {
				errs = append(errs, field.Invalid(at.Child("appProtocol"), *p.AppProtocol, msg))
			}
		}
	}
	return errs
}

func validateTarget(port intstr.IntOrString, path *field.Path) (errs field.ErrorList) {
	if port.Type == intstr.Int {
		for _, msg := range validation.IsValidPortNum(port.IntValue()) {
			errs = append(errs, field.Invalid(path, port.IntValue(), msg))
		}
		return errs
	}
	for _, msg := range validation.IsValidPortName(port.StrVal) {
		errs = append(errs, field.Invalid(path, port.StrVal, msg))
	}
	return errs
}

// validateDuplicates wants pairs of protocol and port to be unique.
func validateDuplicates(s *corev1.ServiceSpec, path *field.Path) (errs field.ErrorList) {
	if s.Type == corev1.ServiceTypeClusterIP {
		for i := range s.Ports {
			if s.Ports[i].NodePort != 0 {
				errs = append(errs, field.Forbidden(path.Index(i).Child("nodePort"), "may not be used when `type` is 'ClusterIP'"))
			}
		}
	}
	nodePorts, ports := map[protoPort]bool{}, map[protoPort]bool{}
	for i := range s.Ports {
		p := &s.Ports[i]
		if p.NodePort == 0 {
			continue
		}
		key := protoPort{string(p.Protocol), p.NodePort}
		if nodePorts[key] {
			errs = append(errs, field.Duplicate(path.Index(i).Child("nodePort"), p.NodePort))
		}
		nodePorts[key] = true
	}
	for i := range s.Ports {
		p := &s.Ports[i]
		key := protoPort{string(p.Protocol), p.Port}
		if ports[key] {
			errs = append(errs, field.Duplicate(path.Index(i), corev1.ServicePort{Protocol: p.Protocol, Port: p.Port}))
		}
		ports[key] = true
	}
	return errs
}

func validateAffinity(s *corev1.ServiceSpec, spec *field.Path) field.ErrorList {
	errs := validateSupported(s.SessionAffinity, spec.Child("sessionAffinity"), corev1.ServiceAffinityClientIP, corev1.ServiceAffinityNone)
	config := spec.Child("sessionAffinityConfig")
	switch s.SessionAffinity {
	case corev1.ServiceAffinityNone:
		if s.SessionAffinityConfig != nil {
			errs = append(errs, field.Forbidden(config, "must not be set when session affinity is None"))
		}
	case corev1.ServiceAffinityClientIP:
		const when = "when session affinity type is ClientIP"
		timeout := config.Child("clientIP", "timeoutSeconds")
		switch c := s.SessionAffinityConfig; {
		case c == nil:
			errs = append(errs, field.Required(config, when))
		case c.ClientIP == nil:
			errs = append(errs, field.Required(config.Child("clientIP"), when))
		case c.ClientIP.TimeoutSeconds == nil:
			errs = append(errs, field.Required(timeout, when))
		case *c.ClientIP.TimeoutSeconds <= 0 || *c.ClientIP.TimeoutSeconds > maxAffinity:
			errs = append(errs, field.Invalid(timeout, *c.ClientIP.TimeoutSeconds,
				fmt.Sprintf("must be greater than 0 and less than %d", maxAffinity)))
		}
	}
	return errs
}

// maxAffinity is a day.
const maxAffinity = 86400
