package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// A server has kube-apiserver's flags of who is believed and who decides, and is
// without them what it was.
func TestServersFlagsOfTheAPIServer(t *testing.T) {
	load := func(args string) *serverAPI {
		t.Helper()
		a, fs := newServerAPI(), pflag.NewFlagSet("", pflag.ContinueOnError)
		a.addTo(fs)
		if err := fs.Parse(strings.Fields(args)); err != nil {
			t.Fatal(err)
		}
		if fs.Lookup("client-ca-file") != nil {
			t.Error("the cluster's authority is the server's own affair")
		}
		if _, err := a.load(); err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := load("")
	if a.cfg.AuthorizationModes != nil || a.cfg.Access.AllowedNames != nil || !a.cfg.Anonymous || a.cfg.Access.OIDC.IssuerURL != "" {
		t.Errorf("without flags: %v %q", a.cfg.AuthorizationModes, a.cfg.Access.AllowedNames)
	}
	a = load("--oidc-issuer-url=https://i --oidc-client-id=c --authorization-mode=RBAC --anonymous-auth=false --disable-admission-plugins=LimitRanger")
	if a.cfg.Access.OIDC.IssuerURL != "https://i" || !slices.Equal(a.cfg.AuthorizationModes, []string{"RBAC"}) || a.cfg.Anonymous || !slices.Equal(a.cfg.DisableAdmission, []string{"LimitRanger"}) {
		t.Errorf("with flags: %+v", a.cfg.Access.OIDC)
	}
}
