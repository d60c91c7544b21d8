package podspec

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

const longestSysctl = 253

func (j *judge) ids(user, group *int64, path *field.Path) {
	if user != nil {
		j.say(path.Child("runAsUser"), *user, validation.IsValidUserID(*user))
	}
	if group != nil {
		j.say(path.Child("runAsGroup"), *group, validation.IsValidGroupID(*group))
	}
}

func (j *judge) podSecurity(spec *field.Path) {
	c, path := j.spec.SecurityContext, spec.Child("securityContext")
	if share := j.spec.ShareProcessNamespace; share != nil && *share && j.spec.HostPID {
		j.add(field.Invalid(path.Child("shareProcessNamespace"), *share, "ShareProcessNamespace and HostPID cannot both be enabled"))
	}
	if c == nil {
		return
	}
	if c.FSGroup != nil {
		j.say(path.Child("fsGroup"), *c.FSGroup, validation.IsValidGroupID(*c.FSGroup))
	}
	j.ids(c.RunAsUser, c.RunAsGroup, path)
	for i, g := range c.SupplementalGroups {
		j.say(path.Child("supplementalGroups").Index(i), g, validation.IsValidGroupID(g))
	}
	j.sysctls(c.Sysctls, path.Child("sysctls"))
	if p := c.FSGroupChangePolicy; p != nil {
		oneOf(j, path.Child("fsGroupChangePolicy"), *p, corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	j.seccomp(c.SeccompProfile, path.Child("seccompProfile"))
	j.appArmor(c.AppArmorProfile, path.Child("appArmorProfile"))
	if p := c.SupplementalGroupsPolicy; p != nil {
		oneOf(j, path.Child("supplementalGroupsPolicy"), *p, corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if p := c.SELinuxChangePolicy; p != nil {
		oneOf(j, path.Child("seLinuxChangePolicy"), *p, corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
	}
}

func (j *judge) sysctls(list []corev1.Sysctl, path *field.Path) {
	seen := sets.New[string]()
	for i, s := range list {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			j.required(at)
		case len(s.Name) > longestSysctl || !sysctlName.MatchString(s.Name):
			j.add(field.Invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", longestSysctl, sysctlName)))
		case seen.Has(s.Name):
			j.add(field.Duplicate(at, s.Name))
		}
		seen.Insert(s.Name)
		dotted := strings.ReplaceAll(s.Name, "/", ".")
		switch {
		case j.spec.HostNetwork && strings.HasPrefix(dotted, "net."):
			j.add(field.Invalid(at, s.Name, "may not be specified when 'hostNetwork' is true"))
		case j.spec.HostIPC && isIPCSysctl(dotted):
			j.add(field.Invalid(at, s.Name, "may not be specified when 'hostIPC' is true"))
		}
	}
}

func isIPCSysctl(name string) bool {
	return name == "kernel.sem" || strings.HasPrefix(name, "kernel.shm") || strings.HasPrefix(name, "kernel.msg") || strings.HasPrefix(name, "fs.mqueue.")
}

func (j *judge) seccomp(p *corev1.SeccompProfile, path *field.Path) {
	if p == nil {
		return
	}
	if p.Type == "" {
		j.add(field.Required(path.Child("type"), "type is required when seccompProfile is set"))
	} else {
		oneOf(j, path.Child("type"), p.Type, corev1.SeccompProfileTypeLocalhost, corev1.SeccompProfileTypeRuntimeDefault, corev1.SeccompProfileTypeUnconfined)
	}
	at := path.Child("localhostProfile")
	switch {
	case p.Type != corev1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		j.add(field.Invalid(at, p, "can only be set when seccomp type is Localhost"))
	case p.Type != corev1.SeccompProfileTypeLocalhost:
	case p.LocalhostProfile == nil:
		j.add(field.Required(at, "must be set when seccomp type is Localhost"))
	default:
		j.descending(*p.LocalhostProfile, at)
	}
}

func (j *judge) appArmor(p *corev1.AppArmorProfile, path *field.Path) {
	if p == nil {
		return
	}
	at := path.Child("localhostProfile")
	switch p.Type {
	case corev1.AppArmorProfileTypeLocalhost:
		const longest = 4095
		switch {
		case p.LocalhostProfile == nil || *p.LocalhostProfile == "":
			j.add(field.Required(at, "must be set when AppArmor type is Localhost"))
		case strings.TrimSpace(*p.LocalhostProfile) != *p.LocalhostProfile:
			j.add(field.Invalid(at, *p.LocalhostProfile, "must not be padded with whitespace"))
		case len(*p.LocalhostProfile) > longest:
			j.add(field.TooLong(at, "", longest))
		}
	case corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined:
		if p.LocalhostProfile != nil {
			j.add(field.Invalid(at, p.LocalhostProfile, "can only be set when AppArmor type is Localhost"))
		}
	case "":
		j.add(field.Required(path.Child("type"), "type is required when appArmorProfile is set"))
	default:
		oneOf(j, path.Child("type"), p.Type, corev1.AppArmorProfileTypeLocalhost, corev1.AppArmorProfileTypeRuntimeDefault, corev1.AppArmorProfileTypeUnconfined)
	}
}

// security judges a container's own security context.
func (j *judge) security(c *corev1.SecurityContext, path *field.Path) {
	if c == nil {
		return
	}
	j.ids(c.RunAsUser, c.RunAsGroup, path)
	if m := c.ProcMount; m != nil {
		oneOf(j, path.Child("procMount"), *m, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if *m == corev1.UnmaskedProcMount && j.hostUsers() {
			j.add(field.Invalid(path.Child("procMount"), m, "`hostUsers` must be false to use `Unmasked`"))
		}
	}
	j.seccomp(c.SeccompProfile, path.Child("seccompProfile"))
	if e := c.AllowPrivilegeEscalation; e != nil && !*e {
		if c.Privileged != nil && *c.Privileged {
			j.add(field.Invalid(path, c, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"))
		}
		if c.Capabilities != nil {
			for _, name := range c.Capabilities.Add {
				if name == "CAP_SYS_ADMIN" {
					j.add(field.Invalid(path, c, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"))
				}
			}
		}
	}
	j.appArmor(c.AppArmorProfile, path.Child("appArmorProfile"))
}

// hostUsersDeps forbids the host's namespaces to pods with users of their own.
func (j *judge) hostUsersDeps(path *field.Path) {
	if j.hostUsers() {
		return
	}
	const text = "when `pod.Spec.HostUsers` is false"
	if j.spec.HostNetwork {
		j.add(field.Forbidden(path.Child("hostNetwork"), text))
	}
	if j.spec.HostPID {
		j.add(field.Forbidden(path.Child("HostPID"), text))
	}
	if j.spec.HostIPC {
		j.add(field.Forbidden(path.Child("HostIPC"), text))
	}
}
