// Package etcd tests etcd and etcdctl as programs: on a machine alone as the
// page tells it, and on machines that are lost.
package etcd

import (
	"os"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(lab.Main(m, (*testing.M).Run)) }
