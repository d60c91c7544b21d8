package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/sampan-dev/sampan/kit/run"
)

// Serve is a registry on a loopback address, kept in dir, until ctx ends.
func Serve(ctx context.Context, addr, dir string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	return ServeOn(ctx, l, dir)
}

// ServeOn is Serve on a listener that is already there.
func ServeOn(ctx context.Context, l net.Listener, dir string) error {
	at, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil || !at.Addr().IsLoopback() {
		l.Close()
		return fmt.Errorf("registry: %s: anybody could push there; only loopback addresses are served", l.Addr())
	}
	handler, err := newRegistry(dir)
	if err != nil {
		l.Close()
		return fmt.Errorf("registry: %w", err)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 30 * time.Second}
	g := run.New(ctx)
	g.Go("registry", func(context.Context) error {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	return g.Wait()
}

// newRegistry returns the registry kept in dir. The library keeps blobs on disk
// but manifests in memory only, so these are written down as they come and
// handed to it again at the next start.
func newRegistry(dir string) (http.Handler, error) {
	blobs, manifests := filepath.Join(dir, "blobs"), filepath.Join(dir, "manifests")
	for _, d := range []string{blobs, manifests} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	inner := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)), registry.Logger(log.New(io.Discard, "", 0)))
	r := &keeper{inner: inner, dir: manifests}
	return r, r.replay()
}

type keeper struct {
	inner http.Handler
	dir   string
}

// outcome remembers whether an answer was a good one.
type outcome struct {
	http.ResponseWriter
	code int
}

func (o *outcome) WriteHeader(code int) {
	o.code = code
	o.ResponseWriter.WriteHeader(code)
}

func (k *keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
		k.inner.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 16<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	o := &outcome{ResponseWriter: w, code: http.StatusOK}
	// Written first: an acknowledged push survives.
	file := filepath.Join(k.dir, url.PathEscape(r.URL.Path))
	data := append([]byte(r.Header.Get("Content-Type")+"\n"), body...)
	if err := os.WriteFile(file, data, 0o644); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	k.inner.ServeHTTP(o, r)
	if o.code >= 300 {
		os.Remove(file)
	}
}

// replay hands the library what earlier lives took. Images come before the
// indexes that name them, so it goes round until nothing more is taken.
func (k *keeper) replay() error {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return err
	}
	for left := entries; len(left) > 0; {
		var refused []os.DirEntry
		for _, e := range left {
			ok, err := k.put(e.Name())
			if err != nil {
				return err
			}
			if !ok {
				refused = append(refused, e)
			}
		}
		if len(refused) == len(left) {
			return nil
		}
		left = refused
	}
	return nil
}

func (k *keeper) put(file string) (bool, error) {
	path, err := url.PathUnescape(file)
	if err != nil {
		return false, err
	}
	data, err := os.ReadFile(filepath.Join(k.dir, file))
	if err != nil {
		return false, err
	}
	kind, body, _ := strings.Cut(string(data), "\n")
	req, err := http.NewRequest(http.MethodPut, path, strings.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", kind)
	o := &outcome{ResponseWriter: nowhere{http.Header{}}, code: http.StatusOK}
	k.inner.ServeHTTP(o, req)
	return o.code < 300, nil
}

// nowhere is the answer's place when nobody asked.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}

// Push puts images into the registry at addr, by their names without the host:
// a mirror of docker.io has library/nginx.
func Push(ctx context.Context, addr string, images ...Image) error {
	for _, img := range images {
		for _, n := range img.Names {
			_, path, _ := strings.Cut(n, "/")
			ref, err := name.ParseReference(addr+"/"+path, name.Insecure)
			if err != nil {
				return fmt.Errorf("push %s: %w", n, err)
			}
			if err := remote.Write(ref, img, remote.WithContext(ctx)); err != nil {
				return fmt.Errorf("push %s: %w", n, err)
			}
		}
	}
	return nil
}

// WriteMirrors makes containerd ask endpoints, in order, before host itself.
// dir is containerd's config_path; host may be _default, for all others.
func WriteMirrors(dir, host string, endpoints ...string) error {
	var b strings.Builder
	if host != "_default" {
		server := "https://" + host
		if host == "docker.io" {
			server = "https://registry-1.docker.io"
		}
		fmt.Fprintf(&b, "server = %q\n", server)
	}
	for _, e := range endpoints {
		u, err := url.Parse(e)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("mirror of %s: %q is not an http or https address", host, e)
		}
		fmt.Fprintf(&b, "\n[host.%q]\ncapabilities = [\"pull\", \"resolve\"]\n", e)
	}
	at := filepath.Join(dir, host)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(at, "hosts.toml"), []byte(b.String()), 0o644)
}
