package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sampan-dev/sampan/embedded"
)

// foreignPlugins is where DaemonSets that bring a network put their plugins, and
// expect the common ones.
const foreignPlugins = "/opt/cni/bin"

// plugins puts the common network plugins into dir, where nobody else has.
func plugins(dir string) error {
	if err := embedded.Install(dir, embedded.CNI); err != nil {
		return fmt.Errorf("network plugins: %w", err)
	}
	for _, name := range []string{"bridge", "host-local", "loopback", "portmap"} {
		err := os.Symlink(embedded.CNI, filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("network plugins: %w", err)
		}
	}
	return nil
}
