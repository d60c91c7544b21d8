package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sampan-dev/sampan/api"
	"github.com/sampan-dev/sampan/apiserver/request"
)

// log sends what a container wrote.
func (s *Streams) log(w http.ResponseWriter, r *http.Request, _ *request.Info, obj api.Object) error {
	p, err := pod(obj)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	out, err := logQuery(q, p.Name)
	if err != nil {
		return err
	}
	container, err := choose(p, q.Get("container"))
	if err != nil {
		return err
	}
	if p.Spec.NodeName == "" { // not begun: there is nothing yet
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusOK)
		return nil
	}
	host, err := s.place(r.Context(), p.Spec.NodeName)
	if err != nil {
		return err
	}
	at := &url.URL{Scheme: "https", Host: host, Path: "/containerLogs/" + p.Namespace + "/" + p.Name + "/" + container, RawQuery: out.Encode()}
	client := s.kubelet
	if truth(q.Get("insecureSkipTLSVerifyBackend")) && !client.TLSClientConfig.InsecureSkipVerify {
		client = client.Clone()
		client.TLSClientConfig.InsecureSkipVerify = true
		defer client.CloseIdleConnections()
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.c.Streams, cancel)()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	defer resp.Body.Close()
	if err := kubeletError(resp, p.Name); err != nil {
		return err
	}
	if wsstream.IsWebSocketRequest(r) { // one message for each piece that arrives
		// It drops what comes together with the end; a buffer never does that.
		out := wsstream.NewReader(bufio.NewReader(resp.Body), true, wsstream.NewDefaultReaderProtocols())
		_ = out.Copy(w, r) // the WebSocket library answers, or the client has gone
		return nil
	}
	w.Header().Set("Content-Type", "text/plain")
	if resp.StatusCode == http.StatusOK {
		w.WriteHeader(http.StatusOK)
	}
	copyFlushing(w, resp.Body)
	return nil
}

// copyFlushing passes on what arrives at once: a follower waits for every line.
func copyFlushing(w http.ResponseWriter, r io.Reader) {
	rc := http.NewResponseController(w)
	_ = rc.Flush() // headers first; a writer that cannot flush does without
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			_ = rc.Flush()
		}
		if err != nil {
			return
		}
	}
}

const maxErrorBody = 2048

// kubeletError turns a kubelet's refusal into a Status.
func kubeletError(resp *http.Response, name string) error {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return nil
	}
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	text := strings.TrimSpace(string(raw))
	switch resp.StatusCode {
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(text))
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	}
	return apierrors.NewGenericServerResponse(resp.StatusCode, http.MethodGet, schema.GroupResource{Resource: "pods/log"}, name, text, 0, false)
}

// logQuery checks the options and writes them as the kubelet reads them.
func logQuery(q url.Values, name string) (url.Values, error) {
	out := url.Values{}
	var errs field.ErrorList
	number := func(key string, least int64) {
		v := q.Get(key)
		if v == "" {
			return
		}
		n, err := strconv.ParseInt(v, 10, 64)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(field.NewPath(key), v, "must be an integer"))
		case n < least && least == 0:
			errs = append(errs, field.Invalid(field.NewPath(key), n, "must be greater than or equal to 0"))
		case n < least:
			errs = append(errs, field.Invalid(field.NewPath(key), n, "must be greater than 0"))
		default:
			out.Set(key, v)
		}
	}
	number("tailLines", 0)
	number("limitBytes", 1)
	number("sinceSeconds", 1)
	if v := q.Get("sinceTime"); v != "" {
		var t metav1.Time
		if err := t.UnmarshalQueryParameter(v); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("sinceTime"), v, err.Error()))
		} else {
			out.Set("sinceTime", v)
		}
		if q.Get("sinceSeconds") != "" {
			errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
		}
	}
	if v := q.Get("stream"); v != "" && v != corev1.LogStreamAll {
		if v != corev1.LogStreamStdout && v != corev1.LogStreamStderr {
			errs = append(errs, field.NotSupported(field.NewPath("stream"), v, []string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}))
		} else if q.Get("tailLines") != "" {
			errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
		}
		out.Set("stream", v)
	}
	for _, k := range []string{"follow", "previous", "timestamps"} {
		if truth(q.Get(k)) {
			out.Set(k, "true")
		}
	}
	if len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "PodLogOptions"}, name, errs)
	}
	return out, nil
}

// truth reads a boolean query parameter: present without a value means true.
func truth(v string) bool { return v != "" && v != "0" && !strings.EqualFold(v, "false") }

// choose returns the container meant by name.
func choose(p *corev1.Pod, name string) (string, error) {
	var plain, init, ephemeral []string
	for _, c := range p.Spec.Containers {
		plain = append(plain, c.Name)
	}
	for _, c := range p.Spec.InitContainers {
		init = append(init, c.Name)
	}
	for _, c := range p.Spec.EphemeralContainers {
		ephemeral = append(ephemeral, c.Name)
	}
	if name != "" {
		if !slices.Contains(slices.Concat(plain, init, ephemeral), name) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, p.Name))
		}
		return name, nil
	}
	switch len(plain) {
	case 1:
		return plain[0], nil
	case 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", p.Name))
	}
	text := fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", p.Name, plain)
	if len(init) > 0 {
		text += fmt.Sprintf(" or one of the init containers: %s", init)
	}
	return "", apierrors.NewBadRequest(text)
}
