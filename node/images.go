package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/kit/clock"
	"github.com/sampan-dev/sampan/runtime/image"
	"github.com/sampan-dev/sampan/runtime/store"
)

// step is one thing done to bring images in; a mark of it in the runtime's
// directory makes the next start quick.
type step struct {
	name, mark string
	do         func(context.Context, *store.Store) ([]string, error)
}

// supply puts in what no pod starts without and returns the task that brings in
// the rest beside a kubelet that already runs: the user's archives, and the
// images that the cluster's own manifests call for.
func (n *Node) supply(ctx context.Context, endpoint string, arriving *arrivals) (func(context.Context) error, error) {
	s, err := store.Open(endpoint)
	if err != nil {
		return nil, err
	}
	first, rest, err := n.steps()
	if err == nil {
		err = n.take(ctx, s, first)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return func(ctx context.Context) error {
		defer s.Close()
		defer arriving.end()
		start := clock.Now()
		for _, st := range rest {
			if err := n.take(ctx, s, st); err != nil {
				return err
			}
			arriving.more()
		}
		n.deps.Log.Debug("node: all images are here", "after", clock.Since(start))
		return nil
	}, nil
}

// steps are in the order in which a node that starts needs them.
func (n *Node) steps() (first step, rest []step, err error) {
	program, err := os.Stat(n.cfg.Binary)
	if err != nil {
		return first, nil, err
	}
	system := []step{}
	for _, p := range image.Parts(n.cfg.Binary, filepath.Dir(n.cfg.Runtime.Shim), image.DefaultSystem()) {
		system = append(system, step{name: p.Name, mark: n.mark("seeded-"+p.Name, program), do: func(ctx context.Context, s *store.Store) ([]string, error) {
			return seed(ctx, s, p)
		}})
	}
	archives, err := n.archives()
	return system[0], slices.Concat(system[1:2], archives, system[2:]), err
}

// archives are what the user keeps for nodes.
func (n *Node) archives() ([]step, error) {
	var files []string
	for _, path := range n.cfg.Images {
		more, err := filepath.Glob(filepath.Join(path, "*.tar"))
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	slices.Sort(files)
	var out []step
	for _, path := range files {
		st, err := os.Stat(path)
		if err != nil {
			continue // taken away meanwhile
		}
		out = append(out, step{name: path, mark: n.mark("imported-"+filepath.Base(path), st), do: func(ctx context.Context, s *store.Store) ([]string, error) {
			err := ImportImages(ctx, s, n.cfg.Registry, path)
			if err != nil && ctx.Err() == nil {
				// One that cannot be read keeps nothing else from working.
				n.deps.Log.Error("node: image archive not imported", "file", path, "err", err)
				return nil, errUnread
			}
			return nil, err
		}})
	}
	return out, nil
}

var errUnread = errors.New("archive not read")

// mark names the file that says what was made of a file as it is now.
func (n *Node) mark(of string, st os.FileInfo) string {
	return filepath.Join(n.cfg.Runtime.Root, fmt.Sprintf("%s-%d-%d", of, st.Size(), st.ModTime().UnixNano()))
}

// take does a step unless its mark says that it was done and the images it
// brought are still there. Failing to leave a mark costs only time.
func (n *Node) take(ctx context.Context, s *store.Store, st step) error {
	if text, err := os.ReadFile(st.mark); err == nil {
		if there, err := s.Present(ctx, strings.Fields(string(text))...); err == nil && there {
			return nil
		}
	}
	names, err := st.do(ctx, s)
	if errors.Is(err, errUnread) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("images: %s: %w", st.name, err)
	}
	_ = os.WriteFile(st.mark, []byte(strings.Join(names, "\n")), 0o600)
	return nil
}

// seed makes a part of the system's images and puts it in.
func seed(ctx context.Context, s *store.Store, p image.Part) ([]string, error) {
	imgs, err := p.Make()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, img := range imgs {
		names = append(names, img.Names...)
	}
	return names, s.Seed(ctx, imgs...)
}

// ImportImages brings an archive's images into a node's runtime and, unless
// registry is empty, into the node's own registry.
func ImportImages(ctx context.Context, s *store.Store, registry, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = s.Import(ctx, f, false); err != nil || registry == "" {
		return err
	}
	a, err := image.Open(path)
	if err != nil {
		return err
	}
	defer a.Close()
	return image.Push(ctx, registry, a.Images...)
}
