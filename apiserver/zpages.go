package apiserver

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
	"github.com/sampan-dev/sampan/kit/clock"
)

// What /statusz and /flagz say, for people and, when asked for by kind, for
// programs.
const (
	component  = "kube-apiserver"
	zpageGroup = "config.k8s.io"
	zpageHead  = "\n%s %s\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"
)

type statusz struct {
	metav1.TypeMeta `json:""`
	Metadata        metav1.ObjectMeta `json:"metadata,omitempty"`
	StartTime       metav1.Time       `json:"startTime"`
	UptimeSeconds   int64             `json:"uptimeSeconds"`
	GoVersion       string            `json:"goVersion"`
	BinaryVersion   string            `json:"binaryVersion"`
	Paths           []string          `json:"paths"`
}

type flagz struct {
	metav1.TypeMeta `json:""`
	Metadata        metav1.ObjectMeta `json:"metadata,omitempty"`
	Flags           map[string]string `json:"flags,omitempty"`
}

// zpage answers as text or, if the client names kind in a version there is, as
// JSON.
func zpage(w http.ResponseWriter, r *http.Request, kind string, text func(io.Writer), object func(metav1.TypeMeta) any) {
	accept := r.Header.Get("Accept")
	for one := range strings.SplitSeq(accept, ",") {
		media, params, _ := strings.Cut(strings.TrimSpace(one), ";")
		version := ""
		for p := range strings.SplitSeq(params, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "v="); ok {
				version = v
			}
		}
		named := strings.Contains(params, "g="+zpageGroup) && strings.Contains(params, "as="+kind)
		if media != api.JSON || !named || version != "v1beta1" && version != "v1alpha1" {
			continue
		}
		if version == "v1alpha1" {
			request.Warn(r.Context(), fmt.Sprintf("This version of the %s endpoint is deprecated. Please use a newer version.", strings.ToLower(kind)))
		}
		writeJSON(w, object(metav1.TypeMeta{Kind: kind, APIVersion: zpageGroup + "/" + version}))
		return
	}
	if accept != "" && !strings.Contains(accept, "text/") && !strings.Contains(accept, "*/*") {
		http.Error(w, "only the following media types are accepted: text/plain, application/json;as="+kind+";v=v1beta1;g="+zpageGroup, http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, zpageHead, component, strings.ToLower(kind))
	text(w)
}

func (s *Server) statusz(w http.ResponseWriter, r *http.Request) {
	up := clock.Since(s.began)
	paths := s.folders()
	zpage(w, r, "Statusz", func(w io.Writer) {
		seconds := int64(up / time.Second)
		fmt.Fprintf(w, "\nStarted: %s\nUp: %d hr %02d min %02d sec\nGo version: %s\nBinary version: %s\nPaths: %s\n",
			s.began.Format(time.UnixDate), seconds/3600, seconds/60%60, seconds%60, runtime.Version(), strings.TrimPrefix(api.Version().GitVersion, "v"), strings.Join(paths, " "))
	}, func(t metav1.TypeMeta) any {
		return statusz{TypeMeta: t, Metadata: metav1.ObjectMeta{Name: component}, StartTime: metav1.Time{Time: s.began}, UptimeSeconds: int64(up / time.Second),
			GoVersion: runtime.Version(), BinaryVersion: strings.TrimPrefix(api.Version().GitVersion, "v"), Paths: paths}
	})
}

// folders are the first parts of the paths that are of use when looking for
// faults.
func (s *Server) folders() []string {
	var out []string
	for _, p := range s.paths() {
		first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
		switch first {
		case "", "apis", "api", "openid", "openapi", ".well-known":
		default:
			out = append(out, "/"+first)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (s *Server) flagz(w http.ResponseWriter, r *http.Request) {
	zpage(w, r, "Flagz", func(w io.Writer) {
		fmt.Fprintln(w)
		for _, name := range slices.Sorted(maps.Keys(s.c.Flags)) {
			fmt.Fprintf(w, "%s=%s\n", name, s.c.Flags[name])
		}
	}, func(t metav1.TypeMeta) any {
		return flagz{TypeMeta: t, Metadata: metav1.ObjectMeta{Name: component}, Flags: s.c.Flags}
	})
}
