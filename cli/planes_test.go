package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/machine"
)

func TestNumberOfControlPlanes(t *testing.T) {
	for _, c := range []struct {
		planes, nodes int
		want          string
	}{
		{1, 1, ""}, {3, 3, ""}, {3, 5, ""}, {5, 100, ""}, {2, 3, "odd"}, {3, 2, "not enough"}, {9, 9, "want 1, 3, 5 or 7"},
	} {
		err := checkPlanes(c.planes, c.nodes)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d of %d: %v, want %q", c.planes, c.nodes, err, c.want)
		}
	}
}

// What each machine of a cluster of several control planes is.
func TestServersOfAClusterOfSeveralControlPlanes(t *testing.T) {
	for i, want := range []string{"--cluster-init", "--control-plane", "--control-plane", "", ""} {
		spec := machine.Spec{Name: nodeName("c", i+1), Cluster: "c", Address: nodeAddress(i + 1)}
		spec.Argv = serverArgs(spec, i+1, 3, "t")
		for _, flag := range []string{"--cluster-init", "--control-plane"} {
			if slices.Contains(spec.Argv, flag) != (flag == want) {
				t.Errorf("node %d: %v, want %q", i+1, spec.Argv, want)
			}
		}
		if isPlane(machine.New("x", spec)) != (i < 3) {
			t.Errorf("node %d is taken for something else", i+1)
		}
	}
}

// A cluster's name belongs to one home: another's up and down leave it alone.
func TestAClusterOfAnotherHome(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: /run/sampan")
	}
	const name = "planes-claim"
	here, there := t.TempDir(), t.TempDir()
	t.Setenv("SAMPAN_HOME", here)
	if err := claim(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(claimPath(name)) })
	file := filepath.Join(machinesDir(), name, name+"-1", "machine.json")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(`{"name":"planes-claim-1","cluster":"planes-claim","address":"100.64.0.2/24","argv":["x"]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SAMPAN_HOME", there)
	for what, err := range map[string]error{
		"up":   up(t.Context(), newProgress(os.Stderr), name, upOptions{nodes: 1}),
		"down": down(t.Context(), newProgress(os.Stderr), name, true),
	} {
		if err == nil || !strings.Contains(err.Error(), "SAMPAN_HOME="+here) {
			t.Errorf("%s: %v, want the name of the other home", what, err)
		}
	}
	if ownSwitch(name, true) {
		t.Error("the other home's switch is taken for ours")
	}
	t.Setenv("SAMPAN_HOME", here)
	if err := claim(name); err != nil {
		t.Errorf("one's own name: %v", err)
	}
}
