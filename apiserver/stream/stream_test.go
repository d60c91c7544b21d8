package stream

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/apiserver/request/requesttest"
)

func res(r string) schema.GroupResource { return schema.GroupResource{Resource: r} }

// kubelet stands in for a node: logs are the query, exec turns its input to
// upper case, port forwarding echoes.
func kubelet(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("container") == "waiting" {
			http.Error(w, `container "waiting" in pod "p" is waiting to start: ContainerCreating`, http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "%s %s\n", r.PathValue("container"), r.URL.Query().Encode())
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/exec/{ns}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpstream.Handshake(r, w, []string{"v4.channel.k8s.io"}); err != nil {
			t.Error(err)
			return
		}
		got := make(chan httpstream.Stream, 8)
		c := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(s httpstream.Stream, replySent <-chan struct{}) error {
			go func() { <-replySent; got <- s }()
			return nil
		})
		if c == nil {
			return
		}
		defer c.Close()
		streams := map[string]httpstream.Stream{}
		for len(streams) < 3 {
			s := <-got
			streams[s.Headers().Get(corev1.StreamType)] = s
		}
		in, _ := io.ReadAll(streams["stdin"])
		fmt.Fprintf(streams["stdout"], "%s: %s", strings.Join(r.URL.Query()["command"], " "), strings.ToUpper(string(in)))
		_ = streams["stdout"].Close()
		fmt.Fprint(streams["error"], `{"metadata":{},"status":"Failure","reason":"NonZeroExitCode","message":"command terminated with non-zero exit code","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}`)
		_ = streams["error"].Close()
		<-c.CloseChan()
	})
	mux.HandleFunc("POST /portForward/{ns}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(httpstream.HeaderProtocolVersion, r.Header.Get(httpstream.HeaderProtocolVersion))
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", spdy.HeaderSpdy31)
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, rw)
	})
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

// gate is an API server with nothing but the connect subresources.
func gate(t *testing.T) (*httptest.Server, *requesttest.Backend) {
	t.Helper()
	host, port, _ := net.SplitHostPort(kubelet(t).Listener.Addr().String())
	n, _ := strconv.Atoi(port)
	b := requesttest.New().With(res("nodes"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: "nowhere.invalid"}, {Type: corev1.NodeInternalIP, Address: host}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n)}},
	}}).With(res("pods"),
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "two"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "a"}, {Name: "waiting"}}, InitContainers: []corev1.Container{{Name: "i"}}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "new"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}},
	)
	connectors := New(Config{}, b, nil).Connectors()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := request.Parse(r)
		obj, err := b.Get(r.Context(), res(i.Resource), i.Namespace, ObjectName(i.Name))
		if err != nil {
			writeError(w, err)
			return
		}
		connectors[i.Resource+"/"+i.Subresource].Connect(w, r, i, obj)
	}))
	t.Cleanup(s.Close)
	return s, b
}

func TestGet(t *testing.T) {
	s, _ := gate(t)
	cases := []struct{ path, want string }{ // want: the body, or the Status' message
		{"pods/p/log", "c \n"},
		{"pods/p/log?tailLines=5&timestamps=true&previous=true&follow=false", "c previous=true&tailLines=5&timestamps=true\n"},
		{"pods/two/log?container=i", "i \n"},
		{"pods/new/log", ""},
		{"pods/two/log", "a container name must be specified for pod two, choose one of: [a waiting] or one of the init containers: [i]"},
		{"pods/two/log?container=zz", "container zz is not valid for pod two"},
		{"pods/two/log?container=waiting", `container "waiting" in pod "p" is waiting to start: ContainerCreating`},
		{"pods/p/log?tailLines=-1", `PodLogOptions "p" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0`},
		{"pods/none/log", `pods "none" not found`},
		{"pods/new/exec?command=ls&stdout=1", "pod new does not have a host assigned"},
		{"pods/p/exec", "you must specify at least one command for the container"},
		{"pods/new/portforward", "pod new does not have a host assigned"},
		{"pods/new/proxy/x", "address not allowed"},
	}
	for _, c := range cases {
		if got := fetch(t, s.URL+"/api/v1/namespaces/y/"+c.path); got != c.want {
			t.Errorf("%s: got %q, want %q", c.path, got, c.want)
		}
	}
	if got := fetch(t, s.URL+"/api/v1/nodes/n/proxy/healthz"); got != "ok" {
		t.Errorf("node proxy: %q", got)
	}
}

func fetch(t *testing.T, at string) string {
	t.Helper()
	resp, err := http.Get(at) //nolint:noctx // 127.0.0.1
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	var st metav1.Status
	if json.Unmarshal(raw, &st) == nil && st.Kind == "Status" {
		if int(st.Code) != resp.StatusCode {
			t.Errorf("%s: code %d in the body, %d on the line", at, st.Code, resp.StatusCode)
		}
		return st.Message
	}
	return string(raw)
}

func TestExecOverWebSocket(t *testing.T) {
	s, _ := gate(t)
	for _, protocol := range []string{protocolV5, protocolV4} {
		d := websocket.Dialer{Subprotocols: []string{protocol}}
		at := "ws" + strings.TrimPrefix(s.URL, "http") + "/api/v1/namespaces/y/pods/p/exec?command=cat&command=-u&stdin=true&stdout=true&stderr=false"
		c, resp, err := d.Dial(at, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if c.Subprotocol() != protocol {
			t.Fatalf("spoke %q", c.Subprotocol())
		}
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
		if protocol == protocolV4 { // its input has no end: only v5 can close a stream
			_ = c.Close()
			continue
		}
		_ = c.WriteMessage(websocket.BinaryMessage, append([]byte{stdinChannel}, "hello"...))
		_ = c.WriteMessage(websocket.BinaryMessage, []byte{255, stdinChannel})
		got := map[byte]string{}
		for {
			_, m, err := c.ReadMessage()
			if err != nil {
				break
			}
			got[m[0]] += string(m[1:])
		}
		if got[stdoutChannel] != "cat -u: HELLO" || !strings.Contains(got[errorChannel], `"message":"3"`) {
			t.Errorf("got %q", got)
		}
		_ = c.Close()
	}
}

// The first protocols say nothing of success, and of failure only its words.
func TestFirstWebSocketProtocol(t *testing.T) {
	for said, want := range map[string]string{
		`{"metadata":{},"status":"Success"}`:                                       "",
		`{"metadata":{},"status":"Failure","message":"command terminated with 3"}`: "command terminated with 3",
	} {
		var b strings.Builder
		if n, err := (textStatus{&b}).Write([]byte(said)); err != nil || n != len(said) || b.String() != want {
			t.Errorf("%s: %d, %v, %q; want %q", said, n, err, b.String(), want)
		}
	}
}

func TestLogOverWebSocket(t *testing.T) {
	s, _ := gate(t)
	d := websocket.Dialer{Subprotocols: []string{"binary.k8s.io"}}
	c, resp, err := d.Dial("ws"+strings.TrimPrefix(s.URL, "http")+"/api/v1/namespaces/y/pods/p/log?container=c", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	got := ""
	for {
		kind, m, err := c.ReadMessage()
		if err != nil {
			break
		}
		if kind != websocket.BinaryMessage {
			t.Errorf("a message of kind %d", kind)
		}
		got += string(m)
	}
	if got != "c \n" {
		t.Errorf("got %q", got)
	}
}

func TestExecOverSPDY(t *testing.T) {
	s, _ := gate(t)
	rt, err := spdy.NewRoundTripper(nil)
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/api/v1/namespaces/y/pods/p/exec?command=cat&stdin=true&stdout=true&stderr=false", nil)
	req.Header.Add(httpstream.HeaderProtocolVersion, "v4.channel.k8s.io")
	resp, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	c, err := rt.NewConnection(resp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	streams := map[string]httpstream.Stream{}
	for _, k := range []string{"error", "stdin", "stdout"} {
		if streams[k], err = c.CreateStream(http.Header{corev1.StreamType: {k}}); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprint(streams["stdin"], "hello")
	_ = streams["stdin"].Close()
	out, _ := io.ReadAll(streams["stdout"])
	if string(out) != "cat: HELLO" {
		t.Errorf("got %q", out)
	}
}

func TestPortForwardTunnel(t *testing.T) {
	s, _ := gate(t)
	d := websocket.Dialer{Subprotocols: []string{"SPDY/3.1+portforward.k8s.io"}}
	c, resp, err := d.Dial("ws"+strings.TrimPrefix(s.URL, "http")+"/api/v1/namespaces/y/pods/p/portforward", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = resp.Body.Close()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Minute))
	var got string
	for _, part := range []string{"ping", "pong"} {
		if err := c.WriteMessage(websocket.BinaryMessage, []byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	for len(got) < len("pingpong") {
		_, m, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		got += string(m)
	}
	if got != "pingpong" || c.Subprotocol() != "SPDY/3.1+portforward.k8s.io" {
		t.Errorf("got %q over %q", got, c.Subprotocol())
	}
}

func TestUnreachableKubelet(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	n, _ := strconv.Atoi(port)
	b := requesttest.New().With(res("nodes"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Status: corev1.NodeStatus{
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n)}},
	}})
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "p"}, Spec: corev1.PodSpec{NodeName: "n", Containers: []corev1.Container{{Name: "c"}}}}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/api/v1/namespaces/y/pods/p/log", nil)
	New(Config{}, b, nil).Connectors()["pods/log"].Connect(w, r, request.Parse(r), p)
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "connection refused") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestBind(t *testing.T) {
	_, b := gate(t)
	post := New(Config{}, b, nil).Posters()["pods/binding"]
	now := metav1.Now()
	b.With(res("pods"),
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "dying", DeletionTimestamp: &now, Finalizers: []string{"x/y"}}},
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "gated"}, Spec: corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "g"}}}})
	cases := []struct{ pod, node, want string }{
		{"new", "n", ""},
		{"new", "n2", `Operation cannot be fulfilled on pods/binding "new": pod new is already assigned to node "n"`},
		{"dying", "n", `Operation cannot be fulfilled on pods/binding "dying": pod dying is being deleted, cannot be assigned to a host`},
		{"gated", "n", `Operation cannot be fulfilled on pods/binding "gated": pod gated has non-empty .spec.schedulingGates`},
		{"none", "n", `pods "none" not found`},
		{"new", "", `Binding "new" is invalid: target.name: Required value`},
	}
	for _, c := range cases {
		body := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: c.pod, Annotations: map[string]string{"by": "test"}}, Target: corev1.ObjectReference{Kind: "Node", Name: c.node}}
		_, err := post.Post(t.Context(), &request.Info{Namespace: "y", Name: c.pod}, nil, body, nil)
		if got := text(err); got != c.want {
			t.Errorf("%s: got %q, want %q", c.pod, got, c.want)
		}
	}
	o, _ := b.Get(t.Context(), res("pods"), "y", "new")
	p := o.(*corev1.Pod)
	if p.Spec.NodeName != "n" || p.Annotations["by"] != "test" || p.Status.Conditions[0].Type != corev1.PodScheduled || p.Status.Conditions[0].Status != corev1.ConditionTrue {
		t.Errorf("%+v", p)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEvict(t *testing.T) {
	labels := map[string]string{"app": "web"}
	web := func(name string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: name, Labels: labels}, Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		}}
	}
	b := requesttest.New().With(res("pods"), web("a"), web("b"), web("c")).With(budgets(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "pdb"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}},
		Status: policyv1.PodDisruptionBudgetStatus{DisruptionsAllowed: 1, CurrentHealthy: 3, DesiredHealthy: 2},
	})
	post := New(Config{}, b, nil).Posters()["pods/eviction"]
	evict := func(name string, o *metav1.DeleteOptions) error {
		p, err := b.Get(t.Context(), res("pods"), "y", name)
		if err != nil {
			return err
		}
		_, err = post.Post(t.Context(), &request.Info{Namespace: "y", Name: name}, p, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name}, DeleteOptions: o}, nil)
		return err
	}
	if err := evict("b", &metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("dry run: %v", err)
	}
	if err := evict("a", nil); err != nil {
		t.Fatal(err)
	}
	err := evict("b", nil)
	if !apierrors.IsTooManyRequests(err) || err.Error() != "Cannot evict pod as it would violate the pod's disruption budget." {
		t.Errorf("%v", err)
	}
	if cause, _ := apierrors.StatusCause(err, policyv1.DisruptionBudgetCause); cause.Message != "The disruption budget pdb needs 2 healthy pods and has 3 currently" {
		t.Errorf("cause %q", cause.Message)
	}
	b.With(budgets(), &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "second"}, Spec: policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}}})
	if err := evict("b", nil); !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.") {
		t.Error(err)
	}
}

type issuer struct{ got request.TokenClaims }

func (i *issuer) Audiences() []string { return []string{"self"} }

func (i *issuer) Issue(c request.TokenClaims) (string, time.Time, string, error) {
	i.got = c
	return "t", time.Now().Add(c.Life), "id", nil
}

func TestToken(t *testing.T) {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "robot", UID: "u"}}
	_, b := gate(t)
	b.With(res("pods"), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "mine", UID: "up"}, Spec: corev1.PodSpec{ServiceAccountName: "robot", NodeName: "n"}})
	is := &issuer{}
	post := New(Config{}, b, is).Posters()["serviceaccounts/token"]
	ask := func(seconds int64, ref *authenticationv1.BoundObjectReference, audiences ...string) (*authenticationv1.TokenRequest, error) {
		out, err := post.Post(t.Context(), &request.Info{Namespace: "y", Name: "robot"}, sa, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds, BoundObjectRef: ref, Audiences: audiences}}, nil)
		if err != nil {
			return nil, err
		}
		return out.(*authenticationv1.TokenRequest), nil
	}
	mine := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "mine", UID: "up"}
	tr, err := ask(3607, mine)
	if err != nil || tr.Status.Token != "t" || is.got.Life != extendedLife || is.got.WarnAfter != mountedLife || is.got.Node.Name != "n" || time.Until(tr.Status.ExpirationTimestamp.Time) > 2*time.Hour {
		t.Errorf("%+v %+v %v", tr, is.got, err)
	}
	if _, err := ask(3607, mine, "vault"); err != nil || is.got.Life != mountedLife || is.got.Audiences[0] != "vault" {
		t.Errorf("%+v %v", is.got, err)
	}
	for want, f := range map[string]func() error{
		`TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes`: func() error { _, err := ask(10, nil); return err },
		`cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name.`: func() error {
			_, err := ask(600, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "p"})
			return err
		},
		`Operation cannot be fulfilled on pods "mine": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated`: func() error {
			_, err := ask(600, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: "mine", UID: "old"})
			return err
		},
		`cannot bind token to object of type /v1, Kind=ConfigMap`: func() error {
			_, err := ask(600, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "ConfigMap", Name: "x"})
			return err
		},
	} {
		if got := text(f()); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestServiceEndpointChoice(t *testing.T) {
	s := New(Config{}, requesttest.New(), nil)
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "y", Name: "web"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	for port, want := range map[string]string{"80": `no endpoints available for service "web"`, "81": `no service port 81 found for service "web"`} {
		if _, err := s.endpoint(t.Context(), svc, port); text(err) != want {
			t.Errorf("%s: %v", port, err)
		}
	}
}
