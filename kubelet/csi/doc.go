// Package csi mounts volumes that storage drivers on the node provide.
//
// Job: noticing drivers that put a socket into the plugins' registry, telling
// the cluster of them in CSINode, and asking them to stage, publish, expand and
// take away volumes; saying which attachable volumes the node uses.
//
// Not its job: provisioning and attaching (controllers and the drivers' own);
// what a pod's volumes are (kubelet/volume).
//
// Invariants: what was published is written beside it, so that an agent that
// starts later can take it away; a volume is unstaged after its last pod; an
// attachable volume is mounted only after the Node says that it is in use, and
// only while the Node says that it is attached.
package csi

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Data is written beside a published volume.
type Data struct {
	Driver     string `json:"driverName"`
	Handle     string `json:"volumeHandle"`
	Volume     string `json:"specVolID"`
	Lifecycle  string `json:"volumeLifecycleMode"`
	Node       string `json:"nodeName"`
	Attachment string `json:"attachmentID,omitempty"`
}

const dataFile = "vol_data.json"

func write(dir string, d Data) error {
	b, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, dataFile), b, 0o600)
}

// Read returns what was written beside a volume; ok is false when nothing was.
func Read(dir string) (d Data, ok bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, dataFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d, false, nil
	}
	if err != nil {
		return d, false, err
	}
	return d, true, json.Unmarshal(b, &d)
}

// InlineHandle identifies a volume that a pod itself describes.
func InlineHandle(namespace, pod, uid, volume string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(volume+namespace+pod+uid)))
}
