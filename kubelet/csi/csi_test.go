package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/sampan-dev/sampan/client"
	fakeclient "github.com/sampan-dev/sampan/client/fake"
	"github.com/sampan-dev/sampan/kit/run"
	volumes "github.com/sampan-dev/sampan/semantics/volume"
)

// plugin is a driver that makes directories and remembers what it was asked.
type plugin struct {
	spec.UnimplementedNodeServer
	registration.UnimplementedRegistrationServer
	socket string

	mu     sync.Mutex
	calls  []string
	status *registration.RegistrationStatus
}

func (p *plugin) note(words ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, strings.Join(words, " "))
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: "d.example.com", Endpoint: p.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = s
	return &registration.RegistrationStatusResponse{}, nil
}

func (p *plugin) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return &spec.NodeGetInfoResponse{NodeId: "id-of-n1", MaxVolumesPerNode: 3, AccessibleTopology: &spec.Topology{Segments: map[string]string{"zone.example.com": "a"}}}, nil
}

func (p *plugin) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	var out []*spec.NodeServiceCapability
	for _, c := range []spec.NodeServiceCapability_RPC_Type{spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME, spec.NodeServiceCapability_RPC_EXPAND_VOLUME} {
		out = append(out, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: c}}})
	}
	return &spec.NodeGetCapabilitiesResponse{Capabilities: out}, nil
}

func (p *plugin) NodeExpandVolume(_ context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	p.note("expand", r.VolumeId, fmt.Sprint(r.CapacityRange.RequiredBytes))
	switch r.CapacityRange.RequiredBytes {
	case 1:
		return nil, status.Error(codes.OutOfRange, "too small")
	case 2:
		return nil, status.Error(codes.Unavailable, "not now")
	}
	return &spec.NodeExpandVolumeResponse{}, nil
}

// agent is the node's: it reports what is in use, as the registry says.
type agent struct {
	api *fakeclient.Server
	r   *Registry
}

func (a *agent) Node() *corev1.Node {
	n, err := client.Of[corev1.Node](a.api, "").Get(context.Background(), "n1")
	if err != nil {
		return nil
	}
	return n
}

func (a *agent) Report(context.Context) (*corev1.Node, error) {
	n := a.Node().DeepCopy()
	n.Status.VolumesInUse = a.r.InUse()
	a.api.Put(n)
	return n, nil
}

func (p *plugin) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	p.note("stage", r.VolumeId, r.PublishContext["lun"])
	return &spec.NodeStageVolumeResponse{}, nil
}

func (p *plugin) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	p.note("publish", r.VolumeId, r.VolumeContext["csi.storage.k8s.io/pod.name"], r.VolumeContext["csi.storage.k8s.io/ephemeral"], r.Secrets["k"])
	return &spec.NodePublishVolumeResponse{}, os.MkdirAll(r.TargetPath, 0o755)
}

func (p *plugin) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	p.note("unpublish", r.VolumeId)
	return &spec.NodeUnpublishVolumeResponse{}, os.Remove(r.TargetPath)
}

func (p *plugin) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	p.note("unstage", r.VolumeId)
	return &spec.NodeUnstageVolumeResponse{}, nil
}

// until waits for a condition, generously.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 6000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("never: " + what)
}

func TestADriverComesServesAndGoes(t *testing.T) {
	root, err := os.MkdirTemp("", "csi") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	api := fakeclient.New()
	api.Put(&corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "n1", UID: "u"}})
	yes := true
	api.Put(&storagev1.CSIDriver{TypeMeta: metav1.TypeMeta{APIVersion: "storage.k8s.io/v1", Kind: "CSIDriver"}, ObjectMeta: metav1.ObjectMeta{Name: "d.example.com"}, Spec: storagev1.CSIDriverSpec{PodInfoOnMount: &yes}})
	api.Put(&corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Data: map[string][]byte{"k": []byte("secret")}})

	p := &plugin{socket: filepath.Join(root, "plugins_registry", "d.sock")}
	host := &agent{api: api}
	r := New(root, "n1", api, host, slog.New(slog.DiscardHandler))
	host.r = r
	g := run.New(t.Context())
	g.Go("registry", r.Run)
	until(t, "the registry's directory", func() bool { _, err := os.Stat(filepath.Dir(p.socket)); return err == nil })
	l, err := net.Listen("unix", p.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	registration.RegisterRegistrationServer(srv, p)
	spec.RegisterNodeServer(srv, p)
	serving := run.New(t.Context())
	serving.Go("driver", func(context.Context) error { return srv.Serve(l) })
	until(t, "the driver is told", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.status != nil && p.status.PluginRegistered })
	n, err := client.Of[storagev1.CSINode](api, "").Get(t.Context(), "n1")
	if err != nil || len(n.Spec.Drivers) != 1 || n.Spec.Drivers[0].NodeID != "id-of-n1" || *n.Spec.Drivers[0].Allocatable.Count != 3 || n.Spec.Drivers[0].TopologyKeys[0] != "zone.example.com" {
		t.Fatalf("CSINode %+v, %v", n, err)
	}
	node, err := client.Of[corev1.Node](api, "").Get(t.Context(), "n1")
	if err != nil || node.Annotations[nodeIDs] != `{"d.example.com":"id-of-n1"}` || node.Labels["zone.example.com"] != "a" {
		t.Errorf("Node %v %v, %v", node.Annotations, node.Labels, err)
	}

	volume := func(uid string) *Request {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod-" + uid, Namespace: "ns", UID: types.UID(uid)}}
		return &Request{
			Pod: pod, Name: "pv", Modes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, Root: root,
			Source: &corev1.CSIPersistentVolumeSource{Driver: "d.example.com", VolumeHandle: "h", FSType: "ext4", NodePublishSecretRef: &corev1.SecretReference{Namespace: "ns", Name: "s"}},
			Dir:    filepath.Join(root, "pods", uid, "volumes/kubernetes.io~csi/pv"),
		}
	}
	a, b := volume("a"), volume("b")
	attachment, unique := volumes.AttachmentName("h", "d.example.com", "n1"), volumes.UniqueName("d.example.com", "h")
	waits := func(what, want string) {
		t.Helper()
		var wait interface{ Waiting() bool }
		if _, err := r.Mount(t.Context(), a); !errors.As(err, &wait) || !strings.Contains(err.Error(), want) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	waits("a volume that nobody attached", "volume kubernetes.io/csi/d.example.com^h is not yet in node's status")
	if n := host.Node(); !slices.Equal(n.Status.VolumesInUse, []corev1.UniqueVolumeName{unique}) {
		t.Errorf("in use before anything is mounted: %v", n.Status.VolumesInUse)
	}
	told := host.Node().DeepCopy()
	told.Status.VolumesAttached = []corev1.AttachedVolume{{Name: unique}}
	api.Put(told)
	waits("an attachment that is not there yet", attachment)
	api.Put(&storagev1.VolumeAttachment{
		TypeMeta: metav1.TypeMeta{APIVersion: "storage.k8s.io/v1", Kind: "VolumeAttachment"}, ObjectMeta: metav1.ObjectMeta{Name: attachment},
		Status: storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"lun": "7"}},
	})
	for _, q := range []*Request{a, b} {
		own, err := r.Mount(t.Context(), q)
		if err != nil || !own {
			t.Fatalf("mount: own %v, %v", own, err)
		}
	}
	for size, kind := range map[string]error{"10": nil, "1": ErrInfeasible, "2": ErrTransient} {
		if err := r.Expand(t.Context(), a, resource.MustParse(size)); !errors.Is(err, kind) {
			t.Errorf("expand to %s: %v, want %v", size, err, kind)
		}
	}
	p.mu.Lock()
	p.calls = slices.DeleteFunc(p.calls, func(c string) bool { return strings.HasPrefix(c, "expand h ") })
	p.mu.Unlock()
	again := New(root, "n1", api, host, slog.New(slog.DiscardHandler))
	if again.Recall(); !slices.Equal(again.InUse(), []corev1.UniqueVolumeName{unique}) || again.Release("a") || !again.Release("b") {
		t.Errorf("an agent that starts later: in use %v", again.InUse())
	}
	for _, q := range []*Request{a, b} {
		if err := r.Unmount(t.Context(), root, string(q.Pod.UID), q.Dir); err != nil {
			t.Fatal(err)
		}
		if err := r.Unmount(t.Context(), root, string(q.Pod.UID), q.Dir); err != nil {
			t.Fatalf("a second time: %v", err)
		}
	}
	inline := volume("c")
	inline.Inline, inline.Source.VolumeHandle = true, InlineHandle("ns", "pod-c", "c", "v")
	if _, err := r.Mount(t.Context(), inline); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"stage h 7", "publish h pod-a false secret", "stage h 7", "publish h pod-b false secret", "unpublish h", "unpublish h", "unstage h",
		"publish " + inline.Source.VolumeHandle + " pod-c true secret",
	}
	p.mu.Lock()
	if !slices.Equal(p.calls, want) {
		t.Errorf("the driver was asked\n%s\nwant\n%s", strings.Join(p.calls, "\n"), strings.Join(want, "\n"))
	}
	p.mu.Unlock()

	srv.Stop() // takes its socket away
	_ = serving.Wait()
	until(t, "the driver is forgotten", func() bool {
		n, err := client.Of[storagev1.CSINode](api, "").Get(t.Context(), "n1")
		return err == nil && len(n.Spec.Drivers) == 0
	})
	if _, err := r.Mount(t.Context(), a); err == nil || err.Error() != "driver name d.example.com not found in the list of registered CSI drivers" {
		t.Errorf("a driver that is gone: %v", err)
	}
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
