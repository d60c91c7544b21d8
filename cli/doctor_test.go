package cli

import (
	"io"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctorRefuses(t *testing.T) {
	t.Setenv("SAMPAN_HOME", t.TempDir())
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-o", "yaml"}, `--output "yaml": want text or json`},
		{[]string{"ci", "--kubeconfig=x"}, "give one of them"},
		{[]string{"ci"}, `there is no cluster "ci"`},
	} {
		cmd := doctorCommand()
		cmd.SetArgs(c.args)
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("doctor %v: %v, want %q", c.args, err, c.want)
		}
	}
}

// A cluster that is not reached ends with 2, whatever else is said.
func TestDoctorEndsWithTwo(t *testing.T) {
	t.Setenv("SAMPAN_HOME", t.TempDir())
	cmd := doctorCommand()
	cmd.SetArgs([]string{"--kubeconfig=" + filepath.Join(t.TempDir(), "none"), "--data-dir=" + t.TempDir()})
	var out strings.Builder
	cmd.SetOut(&out)
	cmd.SetErr(io.Discard)
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	if err := cmd.Execute(); err != exitCode(2) || !strings.Contains(out.String(), "no such file") {
		t.Errorf("%v: %s", err, out.String())
	}
}
