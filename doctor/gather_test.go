package doctor

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func TestListener(t *testing.T) {
	const tcp = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2818 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 41 1 0
   1: 0200407F:192B 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 42 1 0
`
	const tcp6 = `  sl  local_address remote_address st
   0: 00000000000000000000000000000000:192B 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0
`
	for port, want := range map[int]string{10264: "41", 6443: "77", 80: ""} {
		if got := listener(port, tcp, tcp6); got != want {
			t.Errorf("port %d: inode %q, want %q", port, got, want)
		}
	}
}

func TestReadings(t *testing.T) {
	if total, free := memory("MemTotal:  2048 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n"); total != 2<<20 || free != 1<<20 {
		t.Errorf("memory %d, %d", total, free)
	}
	if got := failedProbes("[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/x failed: reason withheld\nreadyz check failed"); !reflect.DeepEqual(got, []string{"etcd", "poststarthook/x"}) {
		t.Errorf("failed probes %q", got)
	}
	if got := reason(`an error on the server ("internal server error: etcd: alarm NOSPACE") has prevented the request from succeeding`); !strings.HasPrefix(got, "etcd: alarm NOSPACE") {
		t.Errorf("reason %q", got)
	}
}

// The first configuration by name is used; its plugins, and those of its
// addresses, must be there.
func TestNetworkConfigurations(t *testing.T) {
	conf, bin := t.TempDir(), t.TempDir()
	for path, text := range map[string]string{
		filepath.Join(conf, "10-own.conflist"): `{"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "flannel"}]}`,
		filepath.Join(conf, "20-other.conf"):   `{"type": "nobody"}`,
		filepath.Join(conf, "30-torn.conf"):    `{`,
		filepath.Join(conf, "notes.txt"):       `{`,
		filepath.Join(bin, "bridge"):           "",
		filepath.Join(bin, "flannel"):          "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := lookAtCNI(conf, []string{"/nowhere", bin}, Kubeadm)
	if len(c.Files) != 2 || !c.Flannel || !reflect.DeepEqual(c.Missing, []string{"host-local"}) || len(c.Bad) != 1 || c.Bad[filepath.Join(conf, "30-torn.conf")] == "" {
		t.Errorf("%+v", c)
	}
}

// A server that cannot be spoken to is told of with its reason, by what really
// comes back from the network; the machine is looked at all the same.
func TestServersThatAreNot(t *testing.T) {
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	secure.Config.ErrorLog = nil
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/version" {
			fmt.Fprint(w, `{"gitVersion": "v1.37.0"}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401}`)
	}))
	defer stranger.Close()
	for server, want := range map[string]string{
		secure.URL: "signed by an authority that",
		strings.Replace(plain.URL, "http:", "https:", 1): "speaks HTTP, not HTTPS",
		"https://" + silent.Addr().String():              "no answer in time",
		"https://" + gone.Addr().String():                "nothing listens at port",
		"https://nobody.invalid:6443":                    "no address is known for the name nobody.invalid",
		stranger.URL:                                     "does not know who asks",
	} {
		cfg := clientcmdapi.NewConfig()
		cfg.Clusters["c"], cfg.AuthInfos["u"] = &clientcmdapi.Cluster{Server: server}, &clientcmdapi.AuthInfo{Token: "t"}
		cfg.Contexts["x"], cfg.CurrentContext = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}, "x"
		timeout := 20 * time.Second
		if strings.Contains(want, "in time") {
			timeout = 300 * time.Millisecond
		}
		r := Examine(Gather(t.Context(), Options{Config: cfg, DataDir: t.TempDir(), Timeout: timeout}))
		if r.Code() != 2 || r.Reached || len(r.Findings) == 0 || r.Findings[0].Check != "reach" || !strings.Contains(r.Findings[0].What, want) || r.Findings[0].Mend == "" {
			t.Errorf("%s: want %q, got %+v", server, want, r.Findings)
		}
		if r.Machine == "" {
			t.Errorf("%s: the machine was not looked at", server)
		}
	}
}
