package service

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/resource"
)

// ledger takes what next needs and gives back what only prev had.
func ledger(ctx context.Context, l resource.Ledger, next, prev *corev1.Service) error {
	if next == nil {
		freeAll(l, prev)
		return nil
	}
	if errs := chooseFamilies(l.Families(), next, prev); len(errs) > 0 {
		return invalid(next, errs)
	}
	if err := takeIPs(ctx, l, next, prev); err != nil {
		return err
	}
	if err := takeNodePorts(ctx, l, next, prev); err != nil {
		return err
	}
	return takeHealthPort(ctx, l, next, prev)
}

func invalid(s *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Kind: "Service"}, s.Name, errs)
}

func owner(s *corev1.Service) string { return s.Namespace + "/" + s.Name }

func freeAll(l resource.Ledger, s *corev1.Service) {
	for _, ip := range heldIPs(s) {
		l.FreeIP(ip)
	}
	for p := range heldPorts(s) {
		l.FreePort(p.protocol, p.port)
	}
	if needsHealthPort(s) && s.Spec.HealthCheckNodePort != 0 {
		l.FreePort(string(corev1.ProtocolTCP), s.Spec.HealthCheckNodePort)
	}
}

// heldIPs are the addresses that a stored service has taken.
func heldIPs(s *corev1.Service) []string {
	if s == nil || !needsIP(s) || headless(s) {
		return nil
	}
	return s.Spec.ClusterIPs
}

// takeIPs gives each family its address: the wanted one or any.
func takeIPs(ctx context.Context, l resource.Ledger, next, prev *corev1.Service) error {
	had := map[string]bool{}
	for _, ip := range heldIPs(prev) {
		had[ip] = true
	}
	if needsIP(next) && !headless(next) {
		ips := make([]string, len(next.Spec.ClusterIPs), 2)
		copy(ips, next.Spec.ClusterIPs)
		for i, family := range next.Spec.IPFamilies {
			if i >= len(ips) {
				ips = append(ips, "")
			}
			if had[ips[i]] {
				delete(had, ips[i])
				continue
			}
			// The first address of a service never changes: validation will say so.
			if i == 0 && len(heldIPs(prev)) > 0 {
				delete(had, prev.Spec.ClusterIPs[0])
				continue
			}
			got, err := l.TakeIP(ctx, string(family), ips[i], owner(next))
			if err != nil {
				return ipError(next, ips[i], err)
			}
			ips[i] = got
		}
		next.Spec.ClusterIPs = ips
		if len(ips) > 0 && next.Spec.ClusterIP == "" {
			next.Spec.ClusterIP = ips[0]
		}
	}
	for ip := range had {
		l.FreeIP(ip)
	}
	return nil
}

func ipError(s *corev1.Service, want string, err error) error {
	if want == "" {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
	}
	return invalid(s, field.ErrorList{field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs,
		fmt.Sprintf("failed to allocate IP %v: %v", want, err))})
}

type protoPort struct {
	protocol string
	port     int32
}

// heldPorts are the node ports that a stored service has taken.
func heldPorts(s *corev1.Service) map[protoPort]bool {
	held := map[protoPort]bool{}
	if s == nil || !needsNodePort(s) {
		return held
	}
	for i := range s.Spec.Ports {
		if p := &s.Spec.Ports[i]; p.NodePort != 0 {
			held[protoPort{string(p.Protocol), p.NodePort}] = true
		}
	}
	return held
}

// takeNodePorts takes the ports the user named, then fills in the others. Two
// protocols on one service port share their node port.
func takeNodePorts(ctx context.Context, l resource.Ledger, next, prev *corev1.Service) error {
	had, mine := heldPorts(prev), map[protoPort]bool{}
	shared := map[int32]int32{}
	take := func(i int, want int32) error {
		p := &next.Spec.Ports[i]
		key := protoPort{string(p.Protocol), want}
		if want == 0 || !had[key] && !mine[key] {
			got, err := l.TakePort(ctx, key.protocol, want, owner(next))
			if err != nil {
				return err
			}
			key.port = got
		}
		mine[key], p.NodePort, shared[p.Port] = true, key.port, key.port
		return nil
	}
	if needsNodePort(next) {
		path := field.NewPath("spec", "ports")
		for i := range next.Spec.Ports {
			if want := next.Spec.Ports[i].NodePort; want != 0 {
				if err := take(i, want); err != nil {
					return invalid(next, field.ErrorList{field.Invalid(path.Index(i).Child("nodePort"), want, err.Error())})
				}
			}
		}
		for i := range next.Spec.Ports {
			p := &next.Spec.Ports[i]
			if p.NodePort != 0 || !wantsNodePort(next) {
				continue
			}
			want := shared[p.Port]
			if mine[protoPort{string(p.Protocol), want}] {
				want = 0
			}
			err := take(i, want)
			if err != nil && want != 0 {
				err = take(i, 0)
			}
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
			}
		}
	}
	for p := range had {
		if !mine[p] {
			l.FreePort(p.protocol, p.port)
		}
	}
	return nil
}

func takeHealthPort(ctx context.Context, l resource.Ledger, next, prev *corev1.Service) error {
	tcp, had := string(corev1.ProtocolTCP), int32(0)
	if prev != nil && needsHealthPort(prev) {
		had = prev.Spec.HealthCheckNodePort
	}
	if !needsHealthPort(next) {
		if had != 0 {
			l.FreePort(tcp, had)
		}
		return nil
	}
	// Once taken it stays: validation refuses another.
	if had != 0 {
		return nil
	}
	want := next.Spec.HealthCheckNodePort
	got, err := l.TakePort(ctx, tcp, want, owner(next))
	if err != nil {
		what := "a HealthCheck NodePort"
		if want != 0 {
			what = fmt.Sprintf("requested HealthCheck NodePort %v", want)
		}
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate %s: %w", what, err))
	}
	next.Spec.HealthCheckNodePort = got
	return nil
}
