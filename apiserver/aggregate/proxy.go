package aggregate

import (
	"context"
	"errors"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// The headers in which a front proxy names who asks.
const (
	userHeader  = "X-Remote-User"
	uidHeader   = "X-Remote-Uid"
	groupHeader = "X-Remote-Group"
	extraPrefix = "X-Remote-Extra-"
)

// SetIdentity names u in h, and nobody else: what a client wrote there is gone.
func SetIdentity(h http.Header, u *request.User) {
	for k := range h {
		if len(k) >= len("X-Remote-") && strings.EqualFold(k[:len("X-Remote-")], "X-Remote-") {
			delete(h, k)
		}
	}
	h.Set(userHeader, u.Name)
	if u.UID != "" {
		h.Set(uidHeader, u.UID)
	}
	for _, g := range u.Groups {
		h.Add(groupHeader, g)
	}
	for k, values := range u.Extra {
		for _, v := range values {
			h.Add(extraPrefix+escapeKey(k), v)
		}
	}
}

// escapeKey makes a header's name of any text: what no name may contain, and the
// sign of escaping itself, is percent-encoded.
func escapeKey(k string) string {
	var b strings.Builder
	for i := range len(k) {
		c := k[i]
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.IndexByte("!#$&'*+-.^_`|~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		const hex = "0123456789ABCDEF"
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}

// groupVersion reads what /apis/GROUP/VERSION/… or /api/VERSION/… is of.
func groupVersion(path string) (schema.GroupVersion, bool) {
	first, rest, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "apis":
		group, rest, _ := strings.Cut(rest, "/")
		version, _, _ := strings.Cut(rest, "/")
		return schema.GroupVersion{Group: group, Version: version}, group != "" && version != ""
	case "api":
		version, _, _ := strings.Cut(rest, "/")
		return schema.GroupVersion{Version: version}, version != ""
	}
	return schema.GroupVersion{}, false
}

// Has says whether another server has a group and version.
func (a *Aggregator) Has(gv schema.GroupVersion) bool { return a.table.Load().remotes[gv] != nil }

// Serve passes a request on if another server has its group and version, and
// says whether it did.
func (a *Aggregator) Serve(w http.ResponseWriter, r *http.Request) bool {
	t := a.table.Load()
	if len(t.remotes) == 0 {
		return false
	}
	gv, ok := groupVersion(r.URL.Path)
	if !ok {
		return false
	}
	to := t.remotes[gv]
	if to == nil {
		return false
	}
	to.serve(w, r)
	return true
}

// serve passes one request on.
func (r *remote) serve(w http.ResponseWriter, in *http.Request) {
	switch {
	case !r.available.Load():
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	case r.bad != nil:
		http.Error(w, r.bad.Error(), http.StatusInternalServerError)
		return
	}
	transport := r.plain
	if in.Header.Get("Upgrade") != "" {
		transport = r.upgrade
	}
	audit := w.Header().Get("Audit-Id")
	w.Header().Del("Cache-Control") // the other server knows better
	p := httputil.ReverseProxy{
		Transport: transport, ErrorLog: log.New(quiet{}, "", 0),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL = &url.URL{Scheme: "https", Host: r.host, Path: pr.In.URL.Path, RawPath: pr.In.URL.RawPath, RawQuery: pr.Out.URL.RawQuery}
			pr.Out.Host = r.host
			pr.Out.Header.Del("Authorization")
			pr.Out.Header["X-Forwarded-For"] = pr.In.Header["X-Forwarded-For"]
			pr.SetXForwarded()
			if audit != "" {
				pr.Out.Header.Set("Audit-Id", audit)
			}
			SetIdentity(pr.Out.Header, request.UserFrom(in.Context()))
		},
		ModifyResponse: func(resp *http.Response) error {
			if audit != "" {
				resp.Header.Del("Audit-Id")
			}
			if !r.a.c.AllowRedirects && resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.Header.Get("Location") != "" {
				return errRedirect
			}
			return nil
		},
		ErrorHandler: r.failed,
	}
	p.ServeHTTP(w, in)
}

var errRedirect = errors.New("the backend attempted to redirect this request, which is not permitted")

// failed answers for a server that did not.
func (r *remote) failed(w http.ResponseWriter, in *http.Request, err error) {
	if errors.Is(err, errRedirect) {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	if !errors.Is(err, context.Canceled) {
		r.a.log.Debug("aggregated server did not answer", "name", r.name, "path", in.URL.Path, "err", err)
		r.a.queue.Add(r.name) // look now whether it is there at all
	}
	http.Error(w, err.Error(), http.StatusServiceUnavailable)
}

// quiet drops what the reverse proxy would log: failed has told it.
type quiet struct{}

func (quiet) Write(p []byte) (int, error) { return len(p), nil }
