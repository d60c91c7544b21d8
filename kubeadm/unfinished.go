package kubeadm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A command that makes this machine part of a cluster leaves a mark when it
// begins to change things and takes it away when it has ended well. The same
// command finds the mark of one that ended half-way, and goes on with what that
// one left, where otherwise it would take it for somebody else's.

// marked is the file; what it holds is the command's name.
func (p paths) marked() string { return filepath.Join(p.conf, ".kubeadm-unfinished") }

// unfinished says whether command ended half-way here.
func (p paths) unfinished(command string) bool {
	text, err := os.ReadFile(p.marked())
	return err == nil && strings.TrimSpace(string(text)) == command
}

func (p paths) begin(command string) error {
	if err := os.MkdirAll(p.conf, 0o755); err != nil {
		return err
	}
	return os.WriteFile(p.marked(), []byte(command+"\n"), 0o600)
}

func (p paths) finish() error {
	if err := os.Remove(p.marked()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// left are the checks for what an earlier try of the same command leaves behind.
func left(c check) bool {
	return slices.ContainsFunc([]string{"FileAvailable-", "DirAvailable-", "Port-"}, func(p string) bool { return strings.HasPrefix(c.name, p) })
}
