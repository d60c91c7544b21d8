package network

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/kit/clock"
)

// Etcd says which etcd holds the network's configuration and leases.
type Etcd struct {
	Endpoints                 []string // URLs, tried in order
	Prefix                    string   // "/coreos.com/network" if empty
	KeyFile, CertFile, CAFile string
	Username, Password        string
}

// Check says what is wrong with a configuration.
func (e Etcd) Check() error {
	if len(e.Endpoints) == 0 {
		return errors.New("etcd-endpoints: Required value")
	}
	for _, s := range e.Endpoints {
		if u, err := url.Parse(s); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("etcd-endpoints: %q: not an http or https URL", s)
		}
	}
	if (e.CertFile == "") != (e.KeyFile == "") {
		return errors.New("etcd-certfile, etcd-keyfile: one is of no use without the other")
	}
	return nil
}

// errAbsent says that etcd has no such key.
var errAbsent = errors.New("not found")

// errTaken says that a key is there already.
var errTaken = errors.New("already there")

// pair is a key without the prefix's part, and its value.
type pair struct {
	key   string
	value []byte
}

// registry is a small part of etcd's API. There are two of them in one etcd: the
// keys of version 3, and those of version 2 for whoever still has them.
type registry interface {
	get(ctx context.Context, key string) ([]byte, error)
	// list returns the pairs below dir and the revision they are of.
	list(ctx context.Context, dir string) ([]pair, uint64, error)
	// put sets a key for ttl; with fresh it must not be there yet.
	put(ctx context.Context, key string, value []byte, ttl time.Duration, fresh bool) error
	// wait returns when something below dir changed after a revision.
	wait(ctx context.Context, dir string, after uint64) error
}

// caller sends requests to whichever endpoint answers.
type caller struct {
	http *http.Client
	cfg  Etcd
}

func newCaller(cfg Etcd) (*caller, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.Prefix = strings.TrimRight(cfg.Prefix, "/"); cfg.Prefix == "" {
		cfg.Prefix = "/coreos.com/network"
	}
	if !strings.HasPrefix(cfg.Prefix, "/") {
		cfg.Prefix = "/" + cfg.Prefix
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		text, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd-cafile: %w", err)
		}
		if t.RootCAs = x509.NewCertPool(); !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("etcd-cafile: %s: no certificate in it", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			return &pair, err
		}
		if _, err := t.GetClientCertificate(nil); err != nil {
			return nil, fmt.Errorf("etcd-certfile: %w", err)
		}
	}
	return &caller{cfg: cfg, http: &http.Client{Transport: &http.Transport{TLSClientConfig: t, Proxy: http.ProxyFromEnvironment, ResponseHeaderTimeout: 0}}}, nil
}

// etcdError is an answer that says no.
type etcdError struct {
	status int
	text   string
}

func (e *etcdError) Error() string { return fmt.Sprintf("etcd answered %d: %s", e.status, e.text) }

// send asks the endpoints in turn until one answers, and hands its body to read.
func (c *caller) send(ctx context.Context, method, path, kind string, body []byte, read func(*http.Response) error) error {
	var errs []error
	for _, at := range c.cfg.Endpoints {
		req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(at, "/")+path, bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", kind)
		if err := c.authorize(ctx, at, req); err != nil {
			errs = append(errs, err)
			continue
		}
		resp, err := c.http.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			errs = append(errs, err)
			continue
		}
		defer resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			err := &etcdError{resp.StatusCode, strings.TrimSpace(string(text))}
			if resp.StatusCode >= 500 {
				errs = append(errs, fmt.Errorf("%s: %w", at, err))
				continue
			}
			return err
		}
		return read(resp)
	}
	return fmt.Errorf("etcd: %w", errors.Join(errs...))
}

// authorize says who asks, where etcd wants to know.
func (c *caller) authorize(ctx context.Context, at string, req *http.Request) error {
	if c.cfg.Username == "" {
		return nil
	}
	if strings.HasPrefix(req.URL.Path, "/v2/") {
		req.SetBasicAuth(c.cfg.Username, c.cfg.Password)
		return nil
	}
	ask, err := json.Marshal(map[string]string{"name": c.cfg.Username, "password": c.cfg.Password})
	if err != nil {
		return err
	}
	login, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(at, "/")+"/v3/auth/authenticate", bytes.NewReader(ask))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(login)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
		return fmt.Errorf("etcd-username: %s does not let %s in (%s)", at, c.cfg.Username, resp.Status)
	}
	req.Header.Set("Authorization", answer.Token)
	return nil
}

// bounded is the longest a request may take that does not wait for something.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, 10*time.Second)
}

// keys3 is etcd's API of version 3, spoken as JSON, where bytes are in base64,
// as encoding/json writes them.
type keys3 struct{ *caller }

func (k keys3) call(ctx context.Context, path string, in, out any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	return k.send(ctx, http.MethodPost, path, "application/json", body, func(r *http.Response) error { return json.NewDecoder(r.Body).Decode(out) })
}

type keyValue struct {
	Key   []byte `json:"key"`
	Value []byte `json:"value"`
}

type rangeAnswer struct {
	Header struct {
		Revision string `json:"revision"`
	} `json:"header"`
	KVs []keyValue `json:"kvs"`
}

func (k keys3) get(ctx context.Context, key string) ([]byte, error) {
	var a rangeAnswer
	if err := k.call(ctx, "/v3/kv/range", map[string]any{"key": []byte(k.cfg.Prefix + "/" + key)}, &a); err != nil {
		return nil, err
	}
	if len(a.KVs) == 0 {
		return nil, errAbsent
	}
	return a.KVs[0].Value, nil
}

// span is the range of keys below dir.
func (k keys3) span(dir string) map[string]any {
	first := k.cfg.Prefix + "/" + dir + "/"
	last := []byte(first)
	last[len(last)-1]++
	return map[string]any{"key": []byte(first), "range_end": last}
}

func (k keys3) list(ctx context.Context, dir string) ([]pair, uint64, error) {
	var a rangeAnswer
	if err := k.call(ctx, "/v3/kv/range", k.span(dir), &a); err != nil {
		return nil, 0, err
	}
	at, err := strconv.ParseUint(a.Header.Revision, 10, 64)
	if err != nil {
		return nil, 0, fmt.Errorf("etcd: revision: %w", err)
	}
	var out []pair
	for _, kv := range a.KVs {
		out = append(out, pair{strings.TrimPrefix(string(kv.Key), k.cfg.Prefix+"/"+dir+"/"), kv.Value})
	}
	return out, at, nil
}

func (k keys3) put(ctx context.Context, key string, value []byte, ttl time.Duration, fresh bool) error {
	var grant struct{ ID string }
	if err := k.call(ctx, "/v3/lease/grant", map[string]any{"TTL": strconv.Itoa(int(ttl.Seconds()))}, &grant); err != nil {
		return err
	}
	name := []byte(k.cfg.Prefix + "/" + key)
	write := map[string]any{"request_put": map[string]any{"key": name, "value": value, "lease": grant.ID}}
	txn := map[string]any{"success": []any{write}}
	if fresh {
		txn["compare"] = []any{map[string]any{"key": name, "target": "VERSION", "result": "EQUAL", "version": "0"}}
	}
	var a struct {
		Succeeded bool `json:"succeeded"`
	}
	if err := k.call(ctx, "/v3/kv/txn", txn, &a); err != nil {
		return err
	}
	if !a.Succeeded {
		return errTaken
	}
	return nil
}

func (k keys3) wait(ctx context.Context, dir string, after uint64) error {
	create := k.span(dir)
	create["start_revision"] = strconv.FormatUint(after+1, 10)
	body, err := json.Marshal(map[string]any{"create_request": create})
	if err != nil {
		return err
	}
	return k.send(ctx, http.MethodPost, "/v3/watch", "application/json", body, func(r *http.Response) error {
		for d := json.NewDecoder(r.Body); ; {
			var m struct {
				Result struct {
					Canceled bool              `json:"canceled"`
					Events   []json.RawMessage `json:"events"`
				} `json:"result"`
				Error json.RawMessage `json:"error"`
			}
			if err := d.Decode(&m); err != nil {
				return err
			}
			if m.Result.Canceled || len(m.Result.Events) > 0 || len(m.Error) > 0 {
				return nil // whatever it is, a new list tells
			}
		}
	})
}

// keys2 is etcd's API of version 2.
type keys2 struct{ *caller }

type node2 struct {
	Key           string  `json:"key"`
	Value         string  `json:"value"`
	Nodes         []node2 `json:"nodes"`
	ModifiedIndex uint64  `json:"modifiedIndex"`
}

func (k keys2) call(ctx context.Context, method, key string, query, form url.Values) (n node2, at uint64, err error) {
	path := "/v2/keys" + k.cfg.Prefix + "/" + key
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	err = k.send(ctx, method, path, "application/x-www-form-urlencoded", []byte(form.Encode()), func(r *http.Response) error {
		at, _ = strconv.ParseUint(r.Header.Get("X-Etcd-Index"), 10, 64) // 0 where it is not told
		var a struct {
			Node node2 `json:"node"`
		}
		err := json.NewDecoder(r.Body).Decode(&a)
		n = a.Node
		return err
	})
	if e := (*etcdError)(nil); errors.As(err, &e) {
		switch {
		case e.status == http.StatusNotFound:
			err = errAbsent
		case e.status == http.StatusPreconditionFailed:
			err = errTaken
		}
	}
	return n, max(at, n.ModifiedIndex), err
}

func (k keys2) get(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	n, _, err := k.call(ctx, http.MethodGet, key, nil, nil)
	return []byte(n.Value), err
}

func (k keys2) list(ctx context.Context, dir string) ([]pair, uint64, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	n, at, err := k.call(ctx, http.MethodGet, dir, url.Values{"recursive": {"true"}}, nil)
	if errors.Is(err, errAbsent) {
		return nil, 0, nil // nobody has a lease yet
	}
	var out []pair
	for _, kid := range n.Nodes {
		out, at = append(out, pair{kid.Key[strings.LastIndexByte(kid.Key, '/')+1:], []byte(kid.Value)}), max(at, kid.ModifiedIndex)
	}
	return out, at, err
}

func (k keys2) put(ctx context.Context, key string, value []byte, ttl time.Duration, fresh bool) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	form := url.Values{"value": {string(value)}, "ttl": {strconv.Itoa(int(ttl.Seconds()))}}
	if fresh {
		form.Set("prevExist", "false")
	}
	_, _, err := k.call(ctx, http.MethodPut, key, nil, form)
	return err
}

func (k keys2) wait(ctx context.Context, dir string, after uint64) error {
	if after == 0 { // nothing to begin at
		return clock.Sleep(ctx, time.Second)
	}
	_, _, err := k.call(ctx, http.MethodGet, dir, url.Values{"wait": {"true"}, "recursive": {"true"}, "waitIndex": {strconv.FormatUint(after+1, 10)}}, nil)
	return err
}
