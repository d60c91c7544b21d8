package cli

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/sampan-dev/sampan/controlplane"
)

// serverAPI are kube-apiserver's flags that a server has, too: who is believed,
// who decides, and admission. Certificates and keys are the server's own.
type serverAPI struct {
	apiServerFlags
	c *component
}

func newServerAPI() *serverAPI {
	a := &serverAPI{c: newComponent("server", "")}
	a.declare(a.c)
	a.access.declare(a.c, &a.cfg)
	return a
}

// ownFlags are of files that a server keeps by itself.
var ownFlags = []string{"client-ca-file", "requestheader-client-ca-file", "service-account-key-file", "service-account-signing-key-file"}

func (a *serverAPI) addTo(fs *pflag.FlagSet) {
	mode := a.c.in(authzFlags).Lookup("authorization-mode")
	mode.DefValue = "[Node,RBAC]"
	for _, heading := range []string{authnFlags, authzFlags, "Admission"} {
		a.c.in(heading).VisitAll(func(f *pflag.Flag) {
			if !slices.Contains(ownFlags, f.Name) && fs.Lookup(f.Name) == nil {
				fs.AddFlag(f)
			}
		})
	}
}

// load reads the files that the flags name.
func (a *serverAPI) load() (*controlplane.Config, error) {
	if !a.c.in(authzFlags).Lookup("authorization-mode").Changed {
		a.cfg.AuthorizationModes = nil // Node and RBAC
	}
	if err := a.access.load(a.c, &a.cfg); err != nil {
		return nil, err
	}
	if !a.c.in(authnFlags).Lookup("requestheader-allowed-names").Changed {
		a.cfg.Access.AllowedNames = nil // the front proxies' own
	}
	return &a.cfg, nil
}
