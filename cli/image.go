package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/machine"
	"github.com/sampan-dev/sampan/node"
	"github.com/sampan-dev/sampan/runtime/image"
	"github.com/sampan-dev/sampan/runtime/store"
)

// imageOptions say whose images are meant: a containerd's, or a cluster's nodes'.
type imageOptions struct {
	cluster, address, registry string
}

func imageCommand() *cobra.Command {
	o := &imageOptions{}
	cmd := &cobra.Command{
		Use: "image", Short: "Build, import and list images without a registry",
		Long: `Build, import and list images without a registry.

Without --address the images of a local cluster's nodes are meant; archives are
kept under ` + imagesDir() + ` too, and nodes that start later import them.`,
	}
	cmd.PersistentFlags().StringVar(&o.cluster, "cluster", DefaultCluster, "the cluster whose nodes are meant")
	cmd.PersistentFlags().StringVar(&o.address, "address", "", "the socket of a containerd to use instead, such as /run/containerd/containerd.sock")
	cmd.PersistentFlags().StringVar(&o.registry, "registry", "", "with --address: push imported images to this loopback registry, too")
	cmd.AddCommand(o.build(), o.load(), o.list(), o.remove(), o.save(), o.system(), serveImages())
	return cmd
}

func (o *imageOptions) build() *cobra.Command {
	var packages, names, cmdline, entrypoint []string
	var applets, cache, dir, user, workdir string
	cmd := &cobra.Command{
		Use: "build [--from-deb PACKAGE] [--from-dir DIR] [-t NAME…]", Short: "Build an image from Debian's packages and files", Args: cobra.NoArgs,
		Long: `Build an image from Debian's packages and what they depend on, and the files
of a directory over them, without a container, and import it. For the names ` + strings.Join(image.Recipes(), "\nand ") + ` there are recipes that make what the images of that name are known for.`,
		Example: `  sampan image build --from-deb nginx
  sampan image build --from-deb curl,iproute2 -t tools:1 --cmd sleep,infinity
  sampan image build --from-dir root/ -t mine:1 --entrypoint /mine`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := debOptions(packages, names, cmdline)
			if err != nil {
				return err
			}
			opts.Applets = cmp.Or(applets, opts.Applets)
			if opts.Cache = cache; dir != "" {
				if opts.Over, err = image.DirEntries(dir); err != nil {
					return err
				}
			}
			if len(entrypoint) > 0 {
				opts.Config.Entrypoint = entrypoint
			}
			opts.Config.User, opts.Config.WorkingDir = cmp.Or(user, opts.Config.User), cmp.Or(workdir, opts.Config.WorkingDir)
			p := newProgress(cmd.ErrOrStderr())
			var img image.Image
			err = p.step(cmd.Context(), "build "+strings.Join(opts.Names, ", "), func(ctx context.Context) (err error) {
				img, err = image.FromDeb(ctx, opts)
				return err
			})
			if err != nil {
				return err
			}
			return o.keep(cmd.Context(), p, img)
		},
	}
	cmd.Flags().StringSliceVar(&packages, "from-deb", nil, "the packages, or the name of a recipe")
	cmd.Flags().StringSliceVarP(&names, "tag", "t", nil, "names of the image; the recipe's own if empty")
	cmd.Flags().StringSliceVar(&cmdline, "cmd", nil, "what a container runs by default")
	cmd.Flags().StringVar(&cache, "cache", filepath.Join(stateDir(), "cache"), "where packages and layers are kept for the next time")
	cmd.Flags().StringVar(&dir, "from-dir", "", "a directory laid over the root, with its links, modes and owners")
	cmd.Flags().StringVar(&applets, "applets", "", "a multi-call program of the packages, such as /bin/busybox, whose applets become links beside it")
	cmd.Flags().StringSliceVar(&entrypoint, "entrypoint", nil, "the program that a container's arguments are given to")
	cmd.Flags().StringVar(&user, "user", "", "whom a container runs as")
	cmd.Flags().StringVar(&workdir, "workdir", "", "where a container begins")
	cmd.MarkFlagsOneRequired("from-deb", "from-dir")
	return cmd
}

func debOptions(packages, names, cmdline []string) (image.DebOptions, error) {
	if len(packages) == 1 {
		want := names
		if len(want) == 0 {
			want = packages
		}
		if opts, err := image.Recipe(packages[0]); err == nil {
			full, err := image.Normalize(want...)
			opts.Names = full
			if len(cmdline) > 0 {
				opts.Config.Entrypoint, opts.Config.Cmd = nil, cmdline
			}
			return opts, err
		}
	}
	if len(names) == 0 {
		return image.DebOptions{}, fmt.Errorf("-t: an image of %s needs a name", cmp.Or(strings.Join(packages, ", "), "files"))
	}
	full, err := image.Normalize(names...)
	return image.DebOptions{Names: full, Packages: packages, Config: image.Config{Cmd: cmdline}}, err
}

// keep writes img to the image directory and brings it to the nodes.
func (o *imageOptions) keep(ctx context.Context, p *progress, img image.Image) error {
	if err := os.MkdirAll(imagesDir(), 0o755); err != nil {
		return err
	}
	file := strings.NewReplacer("/", "_", ":", "_").Replace(img.Names[0]) + ".tar"
	path := filepath.Join(imagesDir(), file)
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	if err := errors.Join(image.Write(f, img), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return o.deliver(ctx, p, path)
}

// deliver imports an archive of the image directory where it is wanted.
func (o *imageOptions) deliver(ctx context.Context, p *progress, path string) error {
	if o.address != "" {
		return p.step(ctx, "import "+filepath.Base(path), func(ctx context.Context) error { return o.importFile(ctx, path) })
	}
	return o.onNodes(func(m *machine.Machine) error {
		return p.step(ctx, "import into "+m.Spec.Name, func(ctx context.Context) error {
			return m.Exec(ctx, []string{machine.Binary, "image", "import", "--address", nodeContainerd, "--registry", nodeRegistry, filepath.Join(imagesMount, filepath.Base(path))},
				machine.Stdio{Out: io.Discard, Err: os.Stderr})
		})
	})
}

// nodeContainerd is the socket of a node's containerd.
const nodeContainerd = "/run/sampan/containerd/containerd.sock"

// onNodes does something for each running node of the cluster.
func (o *imageOptions) onNodes(do func(*machine.Machine) error) error {
	ms, err := clusterMachines(o.cluster)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range ms {
		if st, err := m.State(); err == nil && st.Running {
			errs = append(errs, do(m))
		}
	}
	return errors.Join(errs...)
}

// nodeRegistry is where a node's own registry listens.
const nodeRegistry = "127.0.0.1:5000"

func (o *imageOptions) importFile(ctx context.Context, path string) error {
	s, err := store.Open(o.address)
	if err != nil {
		return err
	}
	defer s.Close()
	return node.ImportImages(ctx, s, o.registry, path)
}

func (o *imageOptions) load() *cobra.Command {
	return &cobra.Command{
		Use: "import FILE…", Short: "Import archives: OCI layouts or what docker save writes, plain, gzip or zstd", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := newProgress(cmd.ErrOrStderr())
			for _, file := range args {
				if o.address != "" {
					if err := o.importFile(cmd.Context(), file); err != nil {
						return fmt.Errorf("%s: %w", file, err)
					}
					continue
				}
				if err := o.adopt(cmd.Context(), p, file); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			}
			return nil
		},
	}
}

// adopt copies an archive into the image directory, once it is known to be one.
func (o *imageOptions) adopt(ctx context.Context, p *progress, file string) error {
	a, err := image.Open(file)
	if err != nil {
		return err
	}
	defer a.Close()
	for _, img := range a.Images {
		if len(img.Names) == 0 {
			return errors.New("holds an image without a name")
		}
		if err := o.keep(ctx, p, img); err != nil {
			return err
		}
	}
	return nil
}

func (o *imageOptions) list() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List images", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.address == "" {
				return o.inNode(cmd.Context(), "ls")
			}
			s, err := store.Open(o.address)
			if err != nil {
				return err
			}
			defer s.Close()
			list, err := s.List(cmd.Context())
			if err != nil {
				return err
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 3, ' ', 0)
			fmt.Fprintln(w, "NAME\tDIGEST\tSIZE\tPINNED")
			for _, i := range list {
				fmt.Fprintf(w, "%s\t%.19s\t%.1f MB\t%v\n", i.Name, i.Digest, float64(i.Size)/1e6, i.Pinned)
			}
			return w.Flush()
		},
	}
}

// inNode runs an image command inside the cluster's first node.
func (o *imageOptions) inNode(ctx context.Context, args ...string) error {
	if err := needRoot("sampan image"); err != nil {
		return err
	}
	m, err := runningMachine(o.cluster, "")
	if err != nil {
		return err
	}
	argv := append([]string{machine.Binary, "image"}, args...)
	return m.Exec(ctx, append(argv, "--address", nodeContainerd), machine.Stdio{Out: os.Stdout, Err: os.Stderr})
}

func (o *imageOptions) remove() *cobra.Command {
	return &cobra.Command{
		Use: "rm NAME…", Short: "Remove images by name", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			full, err := image.Normalize(args...)
			if err != nil {
				return err
			}
			if o.address == "" {
				return o.onNodes(func(m *machine.Machine) error {
					argv := append([]string{machine.Binary, "image", "rm", "--address", nodeContainerd}, full...)
					return m.Exec(cmd.Context(), argv, machine.Stdio{Out: os.Stdout, Err: os.Stderr})
				})
			}
			s, err := store.Open(o.address)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Remove(cmd.Context(), full...)
		},
	}
}

func (o *imageOptions) save() *cobra.Command {
	return &cobra.Command{
		Use: "save NAME…", Short: "Write images to standard output as one archive", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			full, err := image.Normalize(args...)
			if err != nil {
				return err
			}
			if o.address == "" {
				return o.inNode(cmd.Context(), append([]string{"save"}, full...)...)
			}
			s, err := store.Open(o.address)
			if err != nil {
				return err
			}
			defer s.Close()
			return s.Save(cmd.Context(), cmd.OutOrStdout(), full...)
		},
	}
}

func serveImages() *cobra.Command {
	var addr, dir string
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve a registry on a loopback address, until interrupted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return image.Serve(cmd.Context(), addr, dir) },
	}
	cmd.Flags().StringVar(&addr, "listen", "127.0.0.1:5000", "the address")
	cmd.Flags().StringVar(&dir, "dir", filepath.Join(stateDir(), "registry"), "where images are kept")
	return cmd
}
