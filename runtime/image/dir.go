package image

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// DirEntries lists a directory of this computer as a layer's entries, rooted at
// "/": files by their place, links as they are, modes with set-id bits, owners
// by number. Devices, pipes and sockets are the runtime's to make and left out.
func DirEntries(dir string) ([]Entry, error) {
	var out []Entry
	err := filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil || at == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, at)
		if err != nil {
			return err
		}
		e := Entry{Path: "/" + filepath.ToSlash(rel)}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			e.Mode, e.UID, e.GID = int64(st.Mode&0o7777), int(st.Uid), int(st.Gid)
		}
		switch {
		case info.IsDir():
			e.Dir = true
		case info.Mode().IsRegular():
			e.Source = at
		case info.Mode()&fs.ModeSymlink != 0:
			if e.Link, err = os.Readlink(at); err != nil {
				return err
			}
		default:
			return nil
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("image from directory %s: %w", dir, err)
	}
	return out, nil
}
