// Package overlay tests flannel's contract between machines: its manifest on a
// cluster made by kubeadm, its program by hand with etcd.
package overlay

import (
	"os"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, (*testing.M).Run)) }
