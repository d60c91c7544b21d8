package cli

import (
	"slices"
	"testing"
)

func TestFlanneldTakesItsFlagsFromEverywhere(t *testing.T) {
	for name, c := range map[string]struct {
		env             map[string]string
		args            []string
		iface           []string
		endpoints, conf string
		masq            bool
	}{
		"one dash":      {args: []string{"-ip-masq", "-iface=eth0", "-iface=eth1", "-v=10"}, iface: []string{"eth0", "eth1"}, masq: true},
		"variables":     {env: map[string]string{"FLANNELD_ETCD_ENDPOINTS": "http://a:2379", "FLANNELD_IP_MASQ": "true"}, endpoints: "http://a:2379", masq: true},
		"sysconfig":     {env: map[string]string{"FLANNEL_ETCD_ENDPOINTS": "http://b:2379", "FLANNEL_ETCD_PREFIX": "/x"}, endpoints: "http://b:2379", conf: "/x"},
		"old sysconfig": {env: map[string]string{"FLANNEL_ETCD": "http://c:2379"}, endpoints: "http://c:2379"},
		"flags win":     {env: map[string]string{"FLANNELD_ETCD_ENDPOINTS": "http://a:2379"}, args: []string{"--etcd-endpoints", "http://d:2379"}, endpoints: "http://d:2379"},
		"retired":       {args: []string{"--iptables-resync=5", "--iptables-forward-rules"}},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			comp, o := newComponent("flanneld", ""), &flannelOptions{}
			o.flags(comp)
			comp.global()
			if _, err := comp.parse(o.environment(comp, dashes(c.args))); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(o.cfg.Links.Names, c.iface) || c.endpoints != "" && o.endpoints != c.endpoints || c.conf != "" && o.cfg.Etcd.Prefix != c.conf || o.cfg.IPMasq != c.masq {
				t.Errorf("got %+v", o)
			}
		})
	}
}
