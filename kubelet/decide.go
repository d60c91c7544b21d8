package kubelet

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/kubelet/cri"
	semantics "github.com/sampan-dev/sampan/semantics/pod"
)

// View is all that Decide looks at.
type View struct {
	Pod   *corev1.Pod
	State *cri.State
	Now   time.Time
	// Ending is set when the pod must end, whatever its specification says.
	Ending bool
	// Verdicts are what probes found of running containers, by container id.
	Verdicts map[string]Verdict
	// Crash remembers the back-off of containers by name.
	Crash map[string]Crash
	// Actual is what running containers have of the node's resources.
	Actual *grant
	// Killed names the containers that the agent ended to start them anew: no
	// back-off is counted from their end.
	Killed map[string]bool
	// MaxBackOff bounds the wait between restarts; 0 is five minutes.
	MaxBackOff time.Duration
}

// Verdict is what a container's probes say of it.
type Verdict struct {
	Started     bool // the startup probe has passed or there is none
	Dead        bool // the liveness probe has failed
	StartFailed bool // the startup probe has failed
}

// Kind of a container in its pod.
type Kind string

// The kinds of containers.
const (
	Init      Kind = "init container"
	Main      Kind = "container"
	Ephemeral Kind = "ephemeral container"
)

// Action is one thing to do: exactly one field is set.
type Action struct {
	Sandbox *NewSandbox
	Start   *Start
	Stop    *Stop
	End     *End
	Resize  *Resize
}

// NewSandbox makes a sandbox.
type NewSandbox struct{ Attempt uint32 }

// Start makes and starts a container in a sandbox.
type Start struct {
	Container *corev1.Container
	Kind      Kind
	SandboxID string
	Attempt   uint32 // of the sandbox
	Restarts  int
}

// Stop ends one container.
type Stop struct {
	ID, Name, Message string
	Grace             *int64 // overrides the pod's
}

// End stops all of the pod: ordinary containers, then sidecars in reverse order,
// then the sandboxes.
type End struct{}

// Wait says why a container does not run yet.
type Wait struct{ Reason, Message string }

// Plan is what to do about a pod now.
type Plan struct {
	Actions []Action
	Waiting map[string]Wait  // by container
	Crash   map[string]Crash // back-off entries of containers to start
	Wake    time.Time        // decide again then, if not zero
	// Over says that the pod has ended for good: nothing runs and nothing will.
	Over bool
}

func (p *Plan) wake(t time.Time) {
	if p.Wake.IsZero() || t.Before(p.Wake) {
		p.Wake = t
	}
}

// Decide says what to do to bring the pod from its state to what is desired.
// It is called again after its actions, until there are none.
func Decide(v View) Plan {
	p := Plan{Waiting: map[string]Wait{}, Crash: map[string]Crash{}}
	if v.Ending {
		p.end(v)
		return p
	}
	box := v.State.Sandbox()
	if !usable(v, box) {
		p.replaceSandbox(v, box)
		return p
	}
	d := decider{v: v, p: &p, box: box}
	if d.anew() {
		return p
	}
	d.ephemeral()
	failed, initialized := d.init()
	if failed {
		p.end(v)
		return p
	}
	if initialized && !d.mains() {
		p.end(v)
		return p
	}
	d.resizing()
	return p
}

// end asks for the end of all that lives, or says that it has come.
func (p *Plan) end(v View) {
	if v.State.Alive() {
		p.Actions = []Action{{End: &End{}}}
		return
	}
	p.Actions, p.Over = nil, true
}

// usable says whether the newest sandbox can hold the pod's containers.
func usable(v View, box *cri.Sandbox) bool {
	if box == nil || !box.Ready {
		return false
	}
	for i := range v.State.Sandboxes {
		if i > 0 && v.State.Sandboxes[i].Ready {
			return false // two homes: start again with one
		}
	}
	return v.Pod.Spec.HostNetwork || len(box.IPs) > 0
}

func (p *Plan) replaceSandbox(v View, box *cri.Sandbox) {
	if v.State.Alive() {
		p.Actions = []Action{{End: &End{}}}
		return
	}
	attempt := uint32(0)
	if box != nil {
		attempt = box.Attempt + 1
		if !mayRunAgain(v) {
			p.Over = true
			return
		}
	}
	p.Actions = []Action{{Sandbox: &NewSandbox{Attempt: attempt}}}
}

// mayRunAgain says whether a pod that lost its sandbox has anything left to run.
func mayRunAgain(v View) bool {
	if len(v.State.Containers) == 0 {
		return true
	}
	initialized := anyMain(v.Pod, v.State.Containers)
	if !initialized {
		for i := range v.Pod.Spec.InitContainers {
			c := &v.Pod.Spec.InitContainers[i]
			if cs := v.State.Container(c.Name); cs != nil && cs.Exited() && !semantics.Sidecar(c) &&
				cs.ExitCode != 0 && !semantics.Restarts(v.Pod, c, cs.ExitCode) {
				return false
			}
		}
		return v.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever || len(v.State.Containers) == 0
	}
	for i := range v.Pod.Spec.Containers {
		c := &v.Pod.Spec.Containers[i]
		cs := v.State.Container(c.Name)
		if cs == nil || !cs.Exited() || semantics.Restarts(v.Pod, c, cs.ExitCode) {
			return true
		}
	}
	return false
}

func anyMain(pod *corev1.Pod, containers []cri.Container) bool {
	for i := range containers {
		for j := range pod.Spec.Containers {
			if pod.Spec.Containers[j].Name == containers[i].Name {
				return true
			}
		}
	}
	return false
}

// decider works on a pod with a good sandbox.
type decider struct {
	v   View
	p   *Plan
	box *cri.Sandbox
	// since is when a container's end called for all of them to begin anew; what
	// was made before belongs to the past.
	since time.Time
}

// current returns the newest run of the named container in this sandbox.
func (d *decider) current(name string) *cri.Container {
	for i := range d.v.State.Containers {
		if c := &d.v.State.Containers[i]; c.Name == name && c.SandboxID == d.box.ID && !d.past(c) {
			return c
		}
	}
	return nil
}

func (d *decider) past(c *cri.Container) bool { return c.Created.Before(d.since) }

// anew finds out whether the end of a container wants all to begin again, and
// ends those that still run from before. It says whether there are any.
func (d *decider) anew() (waiting bool) {
	for i := range d.v.State.Containers {
		cs := &d.v.State.Containers[i]
		c := containerOf(d.v.Pod, cs.Name)
		if c == nil || !cs.Exited() || d.v.Killed[cs.ID] || !cs.Finish.After(d.since) {
			continue
		}
		if semantics.RestartRule(c, cs.ExitCode) == corev1.ContainerRestartRuleActionRestartAllContainers {
			d.since = cs.Finish
		}
	}
	if d.since.IsZero() {
		return false
	}
	for _, c := range d.v.State.Running() {
		if d.past(c) && kindOf(d.v.Pod, c.Name) != Ephemeral {
			d.p.Actions = append(d.p.Actions, Action{Stop: &Stop{ID: c.ID, Name: c.Name, Message: "Killing container " + c.Name + " to restart all containers of the pod"}})
		}
	}
	return len(d.p.Actions) > 0
}

// kindOf says which of a pod's lists names a container.
func kindOf(pod *corev1.Pod, name string) Kind {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return Init
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return Ephemeral
		}
	}
	return Main
}

// ephemeral starts debugging containers, each once.
func (d *decider) ephemeral() {
	for i := range d.v.Pod.Spec.EphemeralContainers {
		e := &d.v.Pod.Spec.EphemeralContainers[i]
		if d.v.State.Container(e.Name) == nil {
			c := corev1.Container(e.EphemeralContainerCommon)
			d.start(&c, Ephemeral)
		}
	}
}

// init brings the init containers forward by one step. failed: the pod cannot
// be initialized any more; done: the ordinary containers may run.
func (d *decider) init() (failed, done bool) {
	if d.begun() {
		d.sidecars()
		return false, true
	}
	for i := range d.v.Pod.Spec.InitContainers {
		c := &d.v.Pod.Spec.InitContainers[i]
		cs := d.current(c.Name)
		if semantics.Sidecar(c) {
			if !d.sidecar(c, cs) {
				return false, false
			}
			continue
		}
		switch {
		case cs == nil:
			d.start(c, Init)
			return false, false
		case cs.Running():
			return false, false
		case cs.Exited() && cs.ExitCode == 0:
			continue
		case cs.Exited() && !semantics.Restarts(d.v.Pod, c, cs.ExitCode):
			return true, false
		}
		d.restart(c, Init, cs)
		return false, false
	}
	return false, true
}

// begun says whether an ordinary container was made in this sandbox: the init
// containers are done with.
func (d *decider) begun() bool {
	for i := range d.v.Pod.Spec.Containers {
		if d.current(d.v.Pod.Spec.Containers[i].Name) != nil {
			return true
		}
	}
	return false
}

// sidecars keeps the restartable init containers of an initialized pod running.
func (d *decider) sidecars() {
	if d.finished() {
		return
	}
	for i := range d.v.Pod.Spec.InitContainers {
		if c := &d.v.Pod.Spec.InitContainers[i]; semantics.Sidecar(c) {
			d.sidecar(c, d.current(c.Name))
		}
	}
}

// sidecar keeps one running and says whether it has started.
func (d *decider) sidecar(c *corev1.Container, cs *cri.Container) bool {
	switch {
	case cs == nil:
		d.start(c, Init)
		return false
	case cs.Running():
		return !d.kill(c, cs) && d.v.Verdicts[cs.ID].Started
	}
	d.restart(c, Init, cs)
	return false
}

// finished says whether all ordinary containers have ended for good.
func (d *decider) finished() bool {
	for i := range d.v.Pod.Spec.Containers {
		c := &d.v.Pod.Spec.Containers[i]
		cs := d.v.State.Container(c.Name)
		if cs == nil || !cs.Exited() || d.past(cs) || semantics.Restarts(d.v.Pod, c, cs.ExitCode) {
			return false
		}
	}
	return true
}

// mains keeps the ordinary containers running and says whether any has a future.
func (d *decider) mains() (alive bool) {
	for i := range d.v.Pod.Spec.Containers {
		c := &d.v.Pod.Spec.Containers[i]
		cs := d.current(c.Name)
		switch {
		case cs == nil:
			old := d.v.State.Container(c.Name) // in an earlier sandbox
			if old != nil && d.past(old) {
				old = nil
			}
			if old != nil && old.Exited() && !semantics.Restarts(d.v.Pod, c, old.ExitCode) {
				continue
			}
			if old != nil {
				d.restart(c, Main, old)
			} else {
				d.start(c, Main)
			}
		case cs.Running():
			d.kill(c, cs)
		case cs.Exited() && !semantics.Restarts(d.v.Pod, c, cs.ExitCode) && !d.resizedAway(c, cs):
			continue
		default:
			d.restart(c, Main, cs)
		}
		alive = true
	}
	return alive
}

// kill stops a running container that must not run on, and says whether it does.
func (d *decider) kill(c *corev1.Container, cs *cri.Container) bool {
	v := d.v.Verdicts[cs.ID]
	stop := &Stop{ID: cs.ID, Name: c.Name}
	_, _, resize := d.v.changes(c)
	switch {
	case cs.Hash != 0 && cs.Hash != cri.Hash(c):
		stop.Message = fmt.Sprintf("Container %s definition changed", c.Name)
	case v.Dead:
		stop.Message = fmt.Sprintf("Container %s failed liveness probe", c.Name)
		stop.Grace = probeGrace(c.LivenessProbe)
	case v.StartFailed:
		stop.Message = fmt.Sprintf("Container %s failed startup probe", c.Name)
		stop.Grace = probeGrace(c.StartupProbe)
	case resize:
		stop.Message = fmt.Sprintf("Container %s resize requires restart", c.Name)
	default:
		return false
	}
	if !resize && d.v.Pod.Spec.RestartPolicy != corev1.RestartPolicyNever {
		stop.Message += ", will be restarted"
	}
	d.p.Actions = append(d.p.Actions, Action{Stop: stop})
	return true
}

func probeGrace(p *corev1.Probe) *int64 {
	if p == nil {
		return nil
	}
	return p.TerminationGracePeriodSeconds
}

func (d *decider) start(c *corev1.Container, k Kind) {
	restarts := 0
	if old := d.v.State.Container(c.Name); old != nil {
		restarts = old.Restarts + 1
	}
	d.p.Actions = append(d.p.Actions, Action{Start: &Start{
		Container: c, Kind: k, SandboxID: d.box.ID, Attempt: d.box.Attempt, Restarts: restarts,
	}})
}

// restart starts a container that ran before, when its back-off has passed.
func (d *decider) restart(c *corev1.Container, k Kind, cs *cri.Container) {
	if d.v.Killed[cs.ID] { // its end was our doing: the one before it counts
		if cs = d.before(cs); cs == nil {
			d.start(c, k)
			return
		}
	}
	if cs.Exited() {
		wait, next := d.v.Crash[c.Name].After(cs.Finish, d.v.Now, d.v.MaxBackOff)
		if wait > 0 {
			d.p.Waiting[c.Name] = Wait{"CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
				next.Delay, c.Name, d.v.Pod.Name, d.v.Pod.Namespace, d.v.Pod.UID)}
			d.p.wake(d.v.Now.Add(wait))
			return
		}
		d.p.Crash[c.Name] = next
	}
	d.start(c, k)
}

// before returns the run of a container before cs, or nil.
func (d *decider) before(cs *cri.Container) *cri.Container {
	for i := range d.v.State.Containers {
		if c := &d.v.State.Containers[i]; c.Name == cs.Name && c.Restarts < cs.Restarts {
			return c
		}
	}
	return nil
}

// resizedAway says whether a container was ended to begin anew with other
// resources, whatever its restart policy says of its exit code.
func (d *decider) resizedAway(c *corev1.Container, cs *cri.Container) bool {
	_, _, restart := d.v.changes(c)
	return restart && d.v.Killed[cs.ID]
}
