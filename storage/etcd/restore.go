package etcd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// Restore is a snapshot that becomes the data of a member of a new cluster.
// Every member of it is restored from the same file, with its own name and URL.
type Restore struct {
	Snapshot string // a file of Server.Snapshot or `etcdctl snapshot save`
	DataDir  string // must not be there yet

	Name           string   // "default"
	PeerURLs       []string // this member's; "http://localhost:2380"
	InitialCluster string   // name=url,…; this member alone when empty
	ClusterToken   string   // "etcd-cluster"

	// RevisionBump is added to the snapshot's revision, and what is before it is
	// said to be compacted, so that nobody takes an old answer for a new one.
	RevisionBump uint64
}

// Do restores. On an error the data directory is not there.
func (r Restore) Do() error {
	if _, err := os.Stat(r.DataDir); err == nil {
		return fmt.Errorf("restore: %s is there already; move it away first", r.DataDir)
	}
	if err := Verify(r.Snapshot); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	name := orElse(r.Name, "default")
	peers := r.PeerURLs
	if len(peers) == 0 {
		peers = []string{"http://localhost:2380"}
	}
	initial := r.InitialCluster
	if initial == "" {
		var all []string
		for _, p := range peers {
			all = append(all, name+"="+p)
		}
		initial = strings.Join(all, ",")
	}
	err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
		SnapshotPath: r.Snapshot, OutputDataDir: r.DataDir, Name: name, PeerURLs: peers,
		InitialCluster: initial, InitialClusterToken: orElse(r.ClusterToken, "etcd-cluster"),
		RevisionBump: r.RevisionBump, MarkCompacted: r.RevisionBump > 0,
	})
	if err != nil {
		return errors.Join(fmt.Errorf("restore: %s: %w", r.Snapshot, err), os.RemoveAll(r.DataDir))
	}
	return nil
}
