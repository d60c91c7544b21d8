package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/kit/run"
)

// Registry knows the drivers of the node. Make one with New.
type Registry struct {
	root, dir, node string
	c               client.Interface
	host            Host
	log             *slog.Logger

	mu      sync.Mutex
	drivers map[string]*driver                          // by name
	sockets map[string]string                           // registration socket: driver name
	uses    map[corev1.UniqueVolumeName]map[string]bool // pods by attachable volume
	locks   map[string]*sync.Mutex                      // one caller at a time for each volume of a driver
}

// Host is what the registry asks of the node's agent.
type Host interface {
	// Node reads the Node; nil when it cannot be read.
	Node() *corev1.Node
	// Report writes the Node's status, in use volumes included, if it changed,
	// and returns the Node as it is then.
	Report(ctx context.Context) (*corev1.Node, error)
}

type driver struct {
	name, endpoint string
	conn           *grpc.ClientConn
	info           *spec.NodeGetInfoResponse
	stages         bool // volumes are staged before they are published
	expands        bool // volumes grow on the node, too
	groups         bool // the driver itself gives volumes to a group
}

func (d *driver) node() spec.NodeClient { return spec.NewNodeClient(d.conn) }

// New returns a registry of the plugins whose sockets are below root/plugins_registry.
func New(root, node string, c client.Interface, host Host, log *slog.Logger) *Registry {
	return &Registry{
		root: root, dir: filepath.Join(root, "plugins_registry"), node: node, c: c, host: host, log: log, drivers: map[string]*driver{}, sockets: map[string]string{},
		uses: map[corev1.UniqueVolumeName]map[string]bool{}, locks: map[string]*sync.Mutex{},
	}
}

// Run follows the directory until ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	if err := os.MkdirAll(r.dir, 0o750); err != nil {
		return fmt.Errorf("csi: %w", err)
	}
	// Watching begins before the first look: no socket comes unseen between them.
	usual, wake := time.Minute, make(chan struct{}, 1)
	f, err := r.notify()
	if err != nil {
		r.log.Warn("watching plugins failed; looking now and then", "dir", r.dir, "err", err)
		usual = 10 * time.Second
	} else {
		run.Detach(ctx, "plugins", func(ctx context.Context) { watch(ctx, f, wake) })
	}
	for {
		wait := usual
		if !r.scan(ctx) {
			wait = time.Second // one of them did not answer yet
		}
		t := clock.NewTimer(wait)
		select {
		case <-wake:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		if ctx.Err() != nil {
			r.close()
			return nil
		}
	}
}

// notify returns a file that can be read when the directory changes.
func (r *Registry) notify() (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	if _, err := unix.InotifyAddWatch(fd, r.dir, unix.IN_CREATE|unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_MOVED_TO); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inotify"), nil
}

// watch wakes Run when the directory changes.
func watch(ctx context.Context, f *os.File, wake chan<- struct{}) {
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	buf := make([]byte, 4096)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// scan registers new sockets and forgets those that are gone. It says whether
// all are known now.
func (r *Registry) scan(ctx context.Context) bool {
	now := map[string]bool{}
	_ = filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSocket != 0 {
			now[path] = true
		}
		return nil
	})
	r.mu.Lock()
	known := maps.Clone(r.sockets)
	r.mu.Unlock()
	for path, name := range known {
		if !now[path] {
			r.forget(ctx, path, name)
		}
	}
	all := true
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if _, ok := known[path]; ok {
			continue
		}
		if err := r.register(ctx, path); err != nil {
			r.log.Warn("a plugin was not registered", "socket", path, "err", err)
			all = false
		}
	}
	return all
}

func dial(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// register asks a socket what it is and takes in a CSI driver.
func (r *Registry) register(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	reg := registration.NewRegistrationClient(conn)
	info, err := reg.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return err
	}
	if info.Type != registration.CSIPlugin {
		r.mu.Lock()
		r.sockets[path] = "" // known, and none of ours
		r.mu.Unlock()
		return nil
	}
	endpoint := info.Endpoint
	if endpoint == "" {
		endpoint = path
	}
	status := &registration.RegistrationStatus{PluginRegistered: true}
	err = r.take(ctx, path, info.Name, endpoint)
	if err != nil {
		status.PluginRegistered, status.Error = false, err.Error()
	}
	if _, nerr := reg.NotifyRegistrationStatus(ctx, status); nerr != nil && err == nil {
		err = nerr
	}
	return err
}

// take connects to a driver and tells the cluster of it.
func (r *Registry) take(ctx context.Context, path, name, endpoint string) error {
	conn, err := dial(endpoint)
	if err != nil {
		return err
	}
	d := &driver{name: name, endpoint: endpoint, conn: conn}
	if d.info, err = d.node().NodeGetInfo(ctx, &spec.NodeGetInfoRequest{}); err == nil {
		var caps *spec.NodeGetCapabilitiesResponse
		if caps, err = d.node().NodeGetCapabilities(ctx, &spec.NodeGetCapabilitiesRequest{}); err == nil {
			for _, c := range caps.GetCapabilities() {
				d.stages = d.stages || c.GetRpc().GetType() == spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME
				d.expands = d.expands || c.GetRpc().GetType() == spec.NodeServiceCapability_RPC_EXPAND_VOLUME
				d.groups = d.groups || c.GetRpc().GetType() == spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP
			}
			err = r.tell(ctx, d, true)
		}
	}
	if err != nil {
		_ = conn.Close()
		return fmt.Errorf("driver %s: %w", name, err)
	}
	r.mu.Lock()
	r.drivers[name], r.sockets[path] = d, name
	r.mu.Unlock()
	r.log.Info("a storage driver is here", "driver", name, "endpoint", endpoint)
	return nil
}

func (r *Registry) forget(ctx context.Context, path, name string) {
	r.mu.Lock()
	d := r.drivers[name]
	delete(r.sockets, path)
	delete(r.drivers, name)
	r.mu.Unlock()
	if d == nil {
		return
	}
	if err := r.tell(ctx, d, false); err != nil {
		r.log.Warn("the cluster was not told that a storage driver is gone", "driver", name, "err", err)
	}
	_ = d.conn.Close()
}

func (r *Registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.drivers {
		_ = d.conn.Close()
	}
}

func (r *Registry) driver(name string) (*driver, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.drivers[name]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", name)
}

// nodeIDs is the Node's annotation that names it as drivers know it.
const nodeIDs = "csi.volume.kubernetes.io/nodeid"

// tell puts a driver into the CSINode and the Node, or takes it out.
func (r *Registry) tell(ctx context.Context, d *driver, here bool) error {
	nodes := client.Of[corev1.Node](r.c, "")
	node, err := nodes.Get(ctx, r.node)
	if err != nil {
		return err
	}
	ids := map[string]string{}
	if text := node.Annotations[nodeIDs]; text != "" {
		if err := json.Unmarshal([]byte(text), &ids); err != nil {
			r.log.Warn("a node annotation is not understood and written anew", "annotation", nodeIDs, "err", err)
			ids = map[string]string{}
		}
	}
	if ids[d.name] = d.info.NodeId; !here {
		delete(ids, d.name)
	}
	text, err := json.Marshal(ids)
	if err != nil {
		return err
	}
	meta := map[string]any{"annotations": map[string]any{nodeIDs: string(text)}}
	if here && len(d.info.GetAccessibleTopology().GetSegments()) > 0 {
		meta["labels"] = d.info.AccessibleTopology.Segments
	}
	patch, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return err
	}
	if _, err := nodes.Patch(ctx, r.node, "", types.MergePatchType, patch); err != nil {
		return err
	}
	for {
		if err := r.csiNode(ctx, d, here, node); !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
}

func (r *Registry) csiNode(ctx context.Context, d *driver, here bool, node *corev1.Node) error {
	all := client.Of[storagev1.CSINode](r.c, "")
	have, err := all.Get(ctx, r.node)
	fresh := apierrors.IsNotFound(err)
	if fresh {
		have, err = &storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{
			Name: r.node, OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
		}}, nil
		have.APIVersion, have.Kind = "storage.k8s.io/v1", "CSINode"
	}
	if err != nil {
		return err
	}
	next := have.DeepCopy()
	next.Spec.Drivers = slices.DeleteFunc(next.Spec.Drivers, func(o storagev1.CSINodeDriver) bool { return o.Name == d.name })
	if here {
		one := storagev1.CSINodeDriver{Name: d.name, NodeID: d.info.NodeId, TopologyKeys: slices.Sorted(maps.Keys(d.info.GetAccessibleTopology().GetSegments()))}
		if n := int32(min(d.info.MaxVolumesPerNode, 1<<31-1)); n > 0 {
			one.Allocatable = &storagev1.VolumeNodeResources{Count: &n}
		}
		next.Spec.Drivers = append(next.Spec.Drivers, one)
	}
	if fresh {
		_, err = all.Create(ctx, next)
	} else {
		_, err = all.Update(ctx, next)
	}
	return err
}
