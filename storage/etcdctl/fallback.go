package etcdctl

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// patience bounds what looking among the second version's keys may cost.
const patience = time.Second

// fallBack lets `get KEY` without any further wish find a key of the second
// version that the third does not have: what `etcdctl set` wrote, `etcdctl get`
// reads.
func fallBack(ctx context.Context, root *cobra.Command) {
	get, _, err := root.Find([]string{"get"})
	if err != nil {
		return
	}
	ofThird := get.Run
	get.Run = func(cmd *cobra.Command, args []string) {
		wishes := 0
		cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Changed {
				wishes++
			}
		})
		out, _ := cmd.Flags().GetString("write-out")
		if len(args) == 1 && wishes == 0 && out == "simple" && os.Getenv("ETCDCTL_WRITE_OUT") == "" {
			if r := ofSecond(ctx, cmd.Flags(), args[0]); r != nil {
				fmt.Println(r.Node.Value)
				return
			}
		}
		ofThird(cmd, args)
	}
}

// setting is a flag of the third version, or its variable.
func setting(fs *pflag.FlagSet, name string) string {
	f := fs.Lookup(name)
	if v, ok := os.LookupEnv("ETCDCTL_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))); ok && !f.Changed {
		return v
	}
	return strings.Trim(f.Value.String(), "[]")
}

// ofSecond returns a key that is a value of the second version and nothing in
// the third; nil if it is not, or that cannot be known.
func ofSecond(ctx context.Context, fs *pflag.FlagSet, key string) *response {
	if key == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	info := transport.TLSInfo{CertFile: setting(fs, "cert"), KeyFile: setting(fs, "key"), TrustedCAFile: setting(fs, "cacert")}
	skip := setting(fs, "insecure-skip-tls-verify") == "true"
	info.InsecureSkipVerify = skip
	tr, err := transport.NewTransport(info, patience)
	if err != nil {
		return nil
	}
	tr.Proxy = nil
	c := &ctl{settings: settings{endpoints: setting(fs, "endpoints")}}
	w := &web{client: &http.Client{Transport: tr}, timeout: patience}
	if w.endpoints, err = c.servers(); err != nil {
		return nil
	}
	secure := info.CertFile != "" || info.TrustedCAFile != "" || skip
	for i, e := range w.endpoints {
		if host, plain := strings.CutPrefix(e, "http://"); plain && secure && !strings.Contains(c.endpoints, e) {
			w.endpoints[i] = "https://" + host // as the third version takes an address without a scheme
		}
	}
	r, err := w.keys(ctx, http.MethodGet, key, nil, nil)
	if err != nil || r.Node == nil || r.Node.Dir {
		return nil
	}
	cfg := clientv3.Config{Endpoints: w.endpoints, DialTimeout: patience, Logger: zap.NewNop(), Context: ctx}
	if secure {
		if cfg.TLS, err = info.ClientConfig(); err != nil {
			return nil
		}
	}
	third, err := clientv3.New(cfg)
	if err != nil {
		return nil
	}
	defer third.Close()
	if got, err := third.Get(ctx, key, clientv3.WithKeysOnly()); err != nil || len(got.Kvs) > 0 {
		return nil
	}
	return r
}
