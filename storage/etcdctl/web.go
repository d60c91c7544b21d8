package etcdctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/srv"
	"go.etcd.io/etcd/client/pkg/v3/transport"
)

// node and response are what the keys API answers.
type node struct {
	Key        string  `json:"key"`
	Value      string  `json:"value"`
	Dir        bool    `json:"dir,omitempty"`
	Nodes      []*node `json:"nodes"`
	Modified   uint64  `json:"modifiedIndex"`
	Created    uint64  `json:"createdIndex"`
	Expiration string  `json:"expiration,omitempty"`
	TTL        int64   `json:"ttl,omitempty"`
}

type response struct {
	Action   string `json:"action"`
	Node     *node  `json:"node"`
	PrevNode *node  `json:"prevNode"`
	index    uint64
}

// apiError is an error of the keys API.
type apiError struct {
	Code    int    `json:"errorCode"`
	Message string `json:"message"`
	Cause   string `json:"cause"`
	Index   uint64 `json:"index"`
}

func (e *apiError) Error() string {
	return fmt.Sprintf("%d: %s (%s) [%d]", e.Code, e.Message, e.Cause, e.Index)
}

// web speaks to the servers, one after the other until one answers.
type web struct {
	client    *http.Client
	endpoints []string
	timeout   time.Duration // of connecting and the first byte
	user      string
	debug     io.Writer // where requests are told, nil for nowhere
}

// web makes the client that the flags describe.
func (c *ctl) web() (*web, error) {
	tr, err := transport.NewTransport(transport.TLSInfo{CertFile: c.cert, KeyFile: c.key, TrustedCAFile: c.ca}, min(30*time.Second, c.total))
	if err != nil {
		return nil, err
	}
	tr.Proxy = nil // as upstream's: a cluster's members are reached directly
	w := &web{client: &http.Client{Transport: tr}, timeout: c.timeout, user: c.username}
	if c.debug {
		w.debug = c.err
	}
	if w.endpoints, err = c.servers(); err != nil {
		return nil, err
	}
	return w, nil
}

func (c *ctl) servers() ([]string, error) {
	if c.srv != "" {
		found, err := srv.GetClient("etcd-client", c.srv, "")
		if err != nil {
			return nil, fmt.Errorf("--discovery-srv %s: %w", c.srv, err)
		}
		return found.Endpoints, nil
	}
	list := "http://127.0.0.1:2379,http://127.0.0.1:4001"
	for _, s := range []string{c.endpoints, c.endpoint, c.peers} {
		if s != "" {
			list = s
			break
		}
	}
	var out []string
	for s := range strings.SplitSeq(list, ",") {
		if !strings.Contains(s, "://") {
			s = "http://" + s
		}
		u, err := url.Parse(s)
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("--endpoints %q: want http://ADDRESS:PORT or https://ADDRESS:PORT", s)
		}
		out = append(out, strings.TrimSuffix(u.String(), "/"))
	}
	return out, nil
}

// keys asks the keys API about a key.
func (w *web) keys(ctx context.Context, method, key string, query, form url.Values) (*response, error) {
	path := "/v2/keys" + (&url.URL{Path: "/" + strings.Trim(key, "/")}).EscapedPath()
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	var body []byte
	kind := ""
	if form != nil {
		body, kind = []byte(form.Encode()), "application/x-www-form-urlencoded"
	}
	resp, err := w.ask(ctx, method, path, kind, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := &response{}
	if err := decode(resp, r); err != nil {
		return nil, err
	}
	r.index, _ = strconv.ParseUint(resp.Header.Get("X-Etcd-Index"), 10, 64)
	return r, nil
}

// json asks with and for JSON.
func (w *web) json(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	resp, err := w.ask(ctx, method, path, "application/json", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return decode(resp, out)
}

// watch calls fn with each change of a key after an index, as long as it says so.
func (w *web) watch(ctx context.Context, key string, after uint64, recursive bool, fn func(*response) (bool, error)) error {
	next := uint64(0)
	if after > 0 {
		next = after + 1
	}
	for ctx.Err() == nil {
		q := form2{"wait": "true", "recursive": yes(recursive), "waitIndex": indexOf(next)}
		r, err := w.keys(ctx, http.MethodGet, key, q.values(), nil)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			continue // the server ends a wait that is long in vain
		}
		if err != nil {
			return err
		}
		next = r.Node.Modified + 1
		if more, err := fn(r); err != nil || !more {
			return err
		}
	}
	return nil
}

// ask sends a request to the first server that answers.
func (w *web) ask(ctx context.Context, method, path, kind string, body []byte) (*http.Response, error) {
	var errs []string
	for _, e := range w.endpoints {
		if w.debug != nil {
			fmt.Fprintf(w.debug, "Curl-Example: curl -X %s %s%s", method, e, path)
			if len(body) > 0 {
				fmt.Fprintf(w.debug, " -d %q", body)
			}
			fmt.Fprintln(w.debug)
		}
		req, err := http.NewRequestWithContext(ctx, method, e+path, bytes.NewReader(body))
		if err != nil {
			return nil, failed{exitBadArgs, err}
		}
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		if name, password, ok := strings.Cut(w.user, ":"); ok {
			req.SetBasicAuth(name, password)
		}
		resp, err := w.client.Do(req)
		if err == nil && resp.StatusCode < 500 {
			return resp, nil
		}
		if err == nil {
			err = decode(resp, nil)
			resp.Body.Close()
		}
		errs = append(errs, fmt.Sprintf("error #%d: %v", len(errs), err))
	}
	return nil, failed{exitBadConnection, fmt.Errorf("client: etcd cluster is unavailable or misconfigured; %s\n%s",
		strings.Join(errs, "\n; "), "is etcd running there? --endpoints (or ETCDCTL_ENDPOINTS) says where, --ca-file, --cert-file and --key-file how to trust it")}
}

// decode reads an answer into out, or is the error that it tells of.
func decode(resp *http.Response, out any) error {
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return failed{exitServer, err}
	}
	if resp.StatusCode/100 == 2 {
		if out == nil || resp.StatusCode == http.StatusNoContent {
			return nil
		}
		if len(text) == 0 {
			return failed{exitServer, io.EOF}
		}
		if err := json.Unmarshal(text, out); err != nil {
			return failed{exitServer, fmt.Errorf("%s: %w", resp.Request.URL.Host, err)}
		}
		return nil
	}
	e := &apiError{}
	if json.Unmarshal(text, e) == nil && e.Code != 0 {
		return failed{exitServer, e}
	}
	var other struct{ Message string }
	if json.Unmarshal(text, &other) == nil && other.Message != "" {
		return failed{exitServer, errors.New(other.Message)}
	}
	if resp.StatusCode == http.StatusNotFound {
		return failed{exitServer, fmt.Errorf("the etcd at %s does not serve %s: start it with --enable-v2, or use the third version's commands (ETCDCTL_API=3 etcdctl get, put, …)",
			resp.Request.URL.Host, resp.Request.URL.Path)}
	}
	return failed{exitServer, fmt.Errorf("%s: %s: %s", resp.Request.URL, resp.Status, strings.TrimSpace(string(text)))}
}
