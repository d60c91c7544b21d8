package network

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// shelf is a registry in memory.
type shelf struct {
	at    map[string]string
	puts  int
	thief func(key string) // acts just before a put
}

func (s *shelf) get(_ context.Context, key string) ([]byte, error) {
	if v, ok := s.at[key]; ok {
		return []byte(v), nil
	}
	return nil, errAbsent
}

func (s *shelf) list(context.Context, string) (out []pair, _ uint64, _ error) {
	for k, v := range s.at {
		out = append(out, pair{strings.TrimPrefix(k, "subnets/"), []byte(v)})
	}
	return out, 1, nil
}

func (s *shelf) put(_ context.Context, key string, value []byte, _ time.Duration, fresh bool) error {
	if s.thief != nil {
		s.thief(key)
	}
	if _, there := s.at[key]; there && fresh {
		return errTaken
	}
	s.at[key] = string(value)
	s.puts++
	return nil
}

func (s *shelf) wait(ctx context.Context, _ string, _ uint64) error { <-ctx.Done(); return ctx.Err() }

func TestALeaseIsTakenHeldAndRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conf, err := ParseNetConf([]byte(`{"Network": "10.5.0.0/22", "SubnetLen": 24}`)) // .1 to .3
		if err != nil {
			t.Fatal(err)
		}
		other := `{"PublicIP":"100.64.0.9","BackendType":"udp"}`
		reg := &shelf{at: map[string]string{"subnets/10.5.1.0-24": other}}
		reg.thief = func(key string) { // somebody is quicker, once
			reg.at[key], reg.thief = other, nil
		}
		s := &etcdSubnets{registry: reg, margin: time.Hour, log: slog.New(slog.DiscardHandler), conf: conf}
		mine := leaseOf(conf.Backend, addr("100.64.0.2"), addr("100.64.0.2"))
		pods, err := s.hold(t.Context(), mine, netip.Prefix{}, false)
		if err != nil || reg.puts != 1 || len(reg.at) != 3 {
			t.Fatalf("%s, %v; etcd has %v", pods, err, reg.at)
		}
		hold := func(l lease, seen bool, puts int, what string) {
			t.Helper()
			again, err := s.hold(t.Context(), l, netip.Prefix{}, seen)
			if err != nil || again != pods || reg.puts != puts {
				t.Errorf("%s: %s, %v, %d writes; want %s, %d", what, again, err, reg.puts, pods, puts)
			}
		}
		hold(mine, true, 1, "held")
		time.Sleep(22 * time.Hour)
		hold(mine, true, 1, "not due")
		time.Sleep(90 * time.Minute)
		hold(mine, true, 2, "renewed an hour before its end")
		moved := leaseOf(conf.Backend, addr("100.64.0.77"), addr("100.64.0.77"))
		hold(moved, true, 3, "the node's address is another, its range is not")
		delete(reg.at, "subnets/"+subnetKey(pods))
		hold(moved, false, 4, "taken away by somebody")
		var l lease
		if err := json.Unmarshal([]byte(reg.at["subnets/"+subnetKey(pods)]), &l); err != nil || l.PublicIP != addr("100.64.0.77") || l.BackendType != UDP {
			t.Errorf("etcd has %q, %v", reg.at, err)
		}
		full := &etcdSubnets{registry: reg, log: s.log, conf: conf}
		if _, err := full.hold(t.Context(), leaseOf(conf.Backend, addr("100.64.0.3"), addr("100.64.0.3")), netip.Prefix{}, false); err == nil || err.Error() != "out of subnets" {
			t.Errorf("a full network: %v", err)
		}
	})
}

func TestHoldingsThatCannotBeReadAreTold(t *testing.T) {
	h, refused := readHoldings([]pair{
		{"10.5.1.0-24", []byte(`{"PublicIP":"100.64.0.3","BackendType":"udp"}`)}, {"10.5.2.0-24", []byte(`{"PublicIP":"100.64.0.4","BackendType":"vxlan"}`)},
		{"10.5.3.0-24", []byte(`{"PublicIP":"100.64.0.2","BackendType":"udp"}`)}, {"nonsense", nil}, {"10.5.4.0-24", []byte(`{`)},
	})
	peers := h.peers(prefix("10.5.3.0/24"), Backend{Type: UDP}.withDefaults(), refused)
	if len(peers) != 1 || peers[prefix("10.5.1.0/24")].Node != addr("100.64.0.3") {
		t.Errorf("peers %v", peers)
	}
	for _, who := range []string{"nonsense", "10.5.4.0-24", "100.64.0.4"} {
		if refused[who] == "" {
			t.Errorf("nothing is said of %s: %q", who, refused)
		}
	}
}

// etcdOf answers as etcd's gateway does, from a script: path to answer.
func etcdOf(t *testing.T, script map[string]string, asked *[]string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*asked = append(*asked, r.Method+" "+r.URL.RequestURI()+" "+string(body))
		answer, ok := script[r.URL.Path]
		if !ok {
			http.Error(w, `{"errorCode":100,"message":"Key not found"}`, http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestEtcdIsAskedInItsWords(t *testing.T) {
	var asked []string
	// Y29uZg== is "conf", djE= "v1", and the keys are those of the prefix /x.
	url := etcdOf(t, map[string]string{
		"/v3/kv/range":    `{"header":{"revision":"7"},"kvs":[{"key":"L3gvc3VibmV0cy8xMC41LjEuMC0yNA==","value":"djE="}],"count":"1"}`,
		"/v3/lease/grant": `{"ID":"12","TTL":"60"}`,
		"/v3/kv/txn":      `{"header":{"revision":"8"}}`,
	}, &asked)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	c, err := newCaller(Etcd{Endpoints: []string{down.URL, url}, Prefix: "x/"})
	if err != nil {
		t.Fatal(err)
	}
	pairs, at, err := keys3{c}.list(t.Context(), "subnets")
	if err != nil || at != 7 || len(pairs) != 1 || pairs[0].key != "10.5.1.0-24" || string(pairs[0].value) != "v1" {
		t.Errorf("list: %v at %d, %v", pairs, at, err)
	}
	if err := (keys3{c}).put(t.Context(), "subnets/a", []byte("v1"), time.Minute, true); !errors.Is(err, errTaken) {
		t.Errorf("a key that is there: %v", err)
	}
	want := []string{
		`POST /v3/kv/range {"key":"L3gvc3VibmV0cy8=","range_end":"L3gvc3VibmV0czA="}`,
		`POST /v3/lease/grant {"TTL":"60"}`,
		`POST /v3/kv/txn {"compare":[{"key":"L3gvc3VibmV0cy9h","result":"EQUAL","target":"VERSION","version":"0"}],"success":[{"request_put":{"key":"L3gvc3VibmV0cy9h","lease":"12","value":"djE="}}]}`,
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked\n%s\nwant\n%s", strings.Join(asked, "\n"), strings.Join(want, "\n"))
	}
}

func TestTheSecondAPIServesWhereTheThirdHasNothing(t *testing.T) {
	var asked []string
	url := etcdOf(t, map[string]string{
		"/v3/kv/range":                       `{"header":{"revision":"7"}}`,
		"/v2/keys/coreos.com/network/config": `{"action":"get","node":{"key":"/coreos.com/network/config","value":"{\"Network\":\"10.5.0.0/16\"}"}}`,
	}, &asked)
	c, err := newCaller(Etcd{Endpoints: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	r, conf, err := findRegistry(t.Context(), c, slog.New(slog.DiscardHandler))
	if _, second := r.(keys2); !second || err != nil || conf.Network != prefix("10.5.0.0/16") {
		t.Errorf("%T, %v, %v", r, conf, err)
	}
	if pairs, at, err := r.list(t.Context(), "subnets"); err != nil || at != 0 || len(pairs) != 0 {
		t.Errorf("no leases yet: %v at %d, %v", pairs, at, err)
	}
}

func TestEtcdSettingsThatCannotWork(t *testing.T) {
	junk := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(junk, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	at := []string{"https://127.0.0.1:2379"}
	for want, e := range map[string]Etcd{
		"etcd-endpoints: Required value":      {},
		`etcd-endpoints: "127.0.0.1:2379"`:    {Endpoints: []string{"127.0.0.1:2379"}},
		"etcd-certfile, etcd-keyfile":         {Endpoints: at, CertFile: "c"},
		"no certificate in it":                {Endpoints: at, CAFile: junk},
		"etcd-cafile: open /nonexistent":      {Endpoints: at, CAFile: "/nonexistent"},
		"etcd-certfile: open /nonexistent/cr": {Endpoints: at, CertFile: "/nonexistent/crt", KeyFile: "/nonexistent/key"},
	} {
		if _, err := newCaller(e); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", e, err, want)
		}
	}
	for want, c := range map[string]FlannelConfig{
		"etcd-endpoints":            {},
		"subnet-lease-renew-margin": {NodeName: "n", RenewMargin: 24 * time.Hour},
		"iface-regex":               {NodeName: "n", Links: Links{Patterns: []string{"("}}},
	} {
		if _, err := NewFlannel(c, Deps{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", c, err, want)
		}
	}
}
