package seeds

import (
	"os"
	"testing"

	"github.com/sampan-dev/sampan/e2e/lab"
)

// TestBareBinaries is guide 3: etcd on three machines, a master and nodes of bare
// binaries with flags of 2019, by hand, by unit file and by supervisor.
func TestBareBinaries(t *testing.T) {
	several(t)
	need(t, "openssl", "supervisord")
	l := lab.New(t)
	master, one, two := l.Guided("k8s-master", 21), l.Guided("k8s-node1", 22), l.Guided("k8s-node2", 23)
	p := newPlayer(t, master, one, two)
	p.play("3-etcd.txt")
	for i, m := range []*lab.Guided{one, two} {
		m.Containers()
		m.Network([]string{"10.244.1.0/24", "10.244.2.0/24"}[i])
	}
	p.play("3-binaries.txt")
}

// TestServicesOfADistribution is guide 4: etcd with its keys of the second
// version, flannel in user space, and the components by the variables of
// /etc/kubernetes.
func TestServicesOfADistribution(t *testing.T) {
	several(t)
	l := lab.New(t)
	master, node := l.Guided("srv-k8s-master1", 232), l.Guided("srv-k8s-node1", 233)
	p := newPlayer(t, master, node)
	p.play("4.txt")
	node.Containers()
	p.play("4-kubernetes.txt")
}

// TestOneMaster is guide 1.
func TestOneMaster(t *testing.T) {
	several(t)
	l := lab.New(t)
	master, node := l.Guided("master", 2), l.Guided("node1", 3)
	manifest(t, master)
	master.Containers()
	node.Containers()
	newPlayer(t, master, node).play("1.txt")
}

// manifest puts flannel's where a machine sees it.
func manifest(t *testing.T, m *lab.Guided) {
	t.Helper()
	text, err := os.ReadFile("testdata/kube-flannel.yml")
	if err != nil {
		t.Fatal(err)
	}
	m.File("kube-flannel.yml", string(text))
}
