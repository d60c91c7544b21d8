package cni

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
)

func TestHostLocalGivesAddressesAsUpstreamKeepsThem(t *testing.T) {
	dir := t.TempDir()
	conf := func(ipam string) []byte {
		return fmt.Appendf(nil, `{"cniVersion":"0.3.1","name":"cbr0","ipam":{"type":"host-local","dataDir":%q,%s}}`, dir, ipam)
	}
	c, err := parseHostLocal(conf(`"ranges":[[{"subnet":"10.244.1.0/29"}]],"routes":[{"dst":"10.244.0.0/16"}]`)) // .2 to .6, .1 being the gateway
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"10.244.1.2/29", "10.244.1.3/29", "10.244.1.4/29"} {
		res, err := c.allocate(fmt.Sprint("c", i), "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if got := res.IPs[0].Address.String(); got != want || res.IPs[0].Gateway.String() != "10.244.1.1" || len(res.Routes) != 1 {
			t.Errorf("got %s by %s, want %s", got, res.IPs[0].Gateway, want)
		}
	}
	if text, err := os.ReadFile(filepath.Join(dir, "cbr0", "10.244.1.3")); err != nil || string(text) != "c1\r\neth0" {
		t.Errorf("upstream would not know its own: %q, %v", text, err)
	}
	if _, err := c.allocate("c1", "eth0"); err == nil || !strings.Contains(err.Error(), "duplicate allocation is not allowed") {
		t.Errorf("a second address for the same: %v", err)
	}
	for range 2 {
		if err := c.release("c0", "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []string{"10.244.1.5/29", "10.244.1.6/29", "10.244.1.2/29"} { // one just freed comes last
		res, err := c.allocate(fmt.Sprint("d", i), "eth0")
		if err != nil || res.IPs[0].Address.String() != want {
			t.Fatalf("%v, %v; want %s", res, err, want)
		}
	}
	if _, err := c.allocate("e", "eth0"); err == nil || !strings.Contains(err.Error(), "no IP addresses available in range set: 10.244.1.1-10.244.1.6") {
		t.Errorf("a full range: %v", err)
	}
	if _, err := parseHostLocal(conf(`"subnet":"10.9.0.0/24","rangeStart":"10.9.0.50","rangeEnd":"10.9.0.60"`)); err != nil {
		t.Errorf("the older way: %v", err)
	}
	for bad, want := range map[string]string{
		`"ranges":[]`:            "no IP ranges specified",
		`"subnet":"fd00::/64"`:   "not an IPv4 range",
		`"subnet":"10.9.0.0/31"`: "too small to allocate from",
		`"subnet":"10.9.0.0/24","rangeStart":"10.8.0.1"`:    `rangeStart "10.8.0.1": not an address of 10.9.0.0/24`,
		`"ranges":[[{"subnet":"10.9.0.0/24"}],[{"a":"b"}]]`: "one set of IPv4 ranges is supported",
	} {
		if _, err := parseHostLocal(conf(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", bad, err, want)
		}
	}
}

func TestFlannelDelegatesAsUpstream(t *testing.T) {
	file := filepath.Join(t.TempDir(), "subnet.env")
	env := "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	if err := os.WriteFile(file, []byte(env), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := readSubnetFile(file)
	if err != nil || f != (subnetFile{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.244.3.0/24"), 1450, true}) {
		t.Fatalf("%+v, %v", f, err)
	}
	const ipam = `"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.3.0/24"}]],"routes":[{"dst":"10.244.0.0/16"}]}`
	for conf, want := range map[string]string{
		`{"name":"cbr0","cniVersion":"0.3.1","type":"flannel","delegate":{"hairpinMode":true,"isDefaultGateway":true}}`: `{"name":"cbr0","cniVersion":"0.3.1","type":"bridge",
			"hairpinMode":true,"isDefaultGateway":true,"isGateway":true,"ipMasq":false,"mtu":1450,` + ipam + `}`,
		`{"name":"n","type":"flannel","delegate":{"type":"ptp","mtu":1400,"ipMasq":true},"runtimeConfig":{"bandwidth":{}}}`: `{"name":"n","type":"ptp","mtu":1400,"ipMasq":true,"runtimeConfig":{"bandwidth":{}},` + ipam + `}`,
	} {
		c, err := parseFlannel([]byte(conf))
		if err != nil {
			t.Fatal(err)
		}
		text, _ := json.Marshal(c.delegate(f))
		var got, expect any
		if json.Unmarshal(text, &got) != nil || json.Unmarshal([]byte(want), &expect) != nil || !reflect.DeepEqual(got, expect) {
			t.Errorf("%s:\ngot  %s\nwant %s", conf, text, want)
		}
	}
	for conf, want := range map[string]string{
		`{"delegate":{"type":3}}`:       "must have (string) 'type' field",
		`{"delegate":{"name":"other"}}`: "must not have 'name' field, it'll be set by flannel",
		`{"delegate":{"ipam":{}}}`:      "must not have 'ipam' field, it'll be set by flannel",
	} {
		if _, err := parseFlannel([]byte(conf)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", conf, err)
		}
	}
	if err := flannelAdd(&skel.CmdArgs{StdinData: []byte(`{"name":"n","subnetFile":"/nonexistent/subnet.env"}`)}); err == nil || !strings.Contains(err.Error(), "failed to load flannel 'subnet.env' file: open /nonexistent/subnet.env") {
		t.Errorf("without flanneld: %v", err)
	}
	if err := os.WriteFile(file, []byte("FLANNEL_MTU=1450\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readSubnetFile(file); err == nil || !strings.Contains(err.Error(), "is missing FLANNEL_NETWORK, FLANNEL_SUBNET, FLANNEL_IPMASQ") {
		t.Errorf("half a file: %v", err)
	}
}

// answer runs a plugin and returns what it printed.
func answer(t *testing.T, plugin func(*skel.CmdArgs) error, args *skel.CmdArgs) (out []byte, err error) {
	t.Helper()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout = w
	err = plugin(args)
	w.Close()
	out = make([]byte, 1<<14)
	n, _ := r.Read(out)
	return out[:n], err
}

// The chain of flannel's manifest: flannel, which has bridge and host-local do
// its work, then portmap.
func TestTheChainOfTheManifest(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: makes network namespaces")
	}
	if _, err := newNamespace(); err != nil {
		t.Skipf("needs the right to make network namespaces: %v", err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "subnet.env")
	if err := os.WriteFile(file, []byte("FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.3.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path, serve := container(t)
	// host-local's directory is upstream's; a network of this test's own is in it.
	name := "test-" + filepath.Base(filepath.Dir(dir))
	t.Cleanup(func() { os.RemoveAll(filepath.Join(hostLocalDir, name)) })
	args := &skel.CmdArgs{ContainerID: "c1", Netns: path, IfName: "eth0",
		StdinData: fmt.Appendf(nil, `{"cniVersion":"0.3.1","name":%q,"type":"flannel","subnetFile":%q,"dataDir":%q,"delegate":{"hairpinMode":true,"isDefaultGateway":true}}`, name, file, dir)}
	out, err := answer(t, flannelAdd, args)
	if err != nil {
		t.Fatal(err)
	}
	var result struct {
		CNIVersion string
		IPs        []struct{ Version, Address, Gateway string }
		Interfaces []struct{ Name, Sandbox string }
	}
	if err := json.Unmarshal(out, &result); err != nil || result.CNIVersion != "0.3.1" || len(result.IPs) != 1 || result.IPs[0].Version != "4" ||
		result.IPs[0].Address != "10.244.3.2/24" || result.IPs[0].Gateway != "10.244.3.1" || len(result.Interfaces) != 3 || result.Interfaces[0].Name != "cni0" {
		t.Fatalf("result %s, %v", out, err)
	}
	ports := &skel.CmdArgs{ContainerID: "c1", Netns: path, IfName: "eth0", StdinData: fmt.Appendf(nil,
		`{"cniVersion":"0.3.1","name":%q,"type":"portmap","stateDir":%q,"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]},"prevResult":%s}`, name, dir, out)}
	if again, err := answer(t, portmapAdd, ports); err != nil || !strings.Contains(string(again), "10.244.3.2/24") {
		t.Fatalf("portmap: %s, %v", again, err)
	}
	serve()
	for what, at := range map[string]struct {
		ip   [4]byte
		port int
	}{"its address": {[4]byte{10, 244, 3, 2}, 80}, "host port": {[4]byte{10, 244, 3, 1}, 8080}, "host port on loopback": {[4]byte{127, 0, 0, 1}, 8080}} {
		if got, err := ask(at.ip, at.port); got != "from the container" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
	for _, check := range []error{flannelCheck(args), portmapCheck(ports)} {
		if check != nil {
			t.Errorf("CHECK: %v", check)
		}
	}
	for range 2 { // DEL may come any number of times
		if err := portmapDel(ports); err != nil {
			t.Fatalf("portmap DEL: %v", err)
		}
		if err := flannelDel(args); err != nil {
			t.Fatalf("flannel DEL: %v", err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(hostLocalDir, name, "10.*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if exists(hostName("c1", "eth0")) {
		t.Error("the cable was left behind")
	}
	if err := flannelCheck(args); err == nil {
		t.Error("CHECK of a container that left succeeded")
	}
}

func TestCopyPutsAPluginInPlaceWhole(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "flannel"), filepath.Join(dir, "bin", "flannel")
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(source, []byte("new"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "bin", "sampan-cni")
	if err := os.WriteFile(other, []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sampan-cni", target); err != nil {
		t.Fatal(err)
	}
	if code := Main("cp", []string{"-f", source, target}); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	for path, want := range map[string]string{target: "new", other: "other"} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	if st, err := os.Stat(target); err != nil || st.Mode().Perm() != 0o755 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	for _, args := range [][]string{{"-f", source}, {filepath.Join(dir, "none"), target}, {dir, target}} {
		if Main("cp", args) == 0 {
			t.Errorf("cp %q succeeded", args)
		}
	}
}
