package lab

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m, (*testing.M).Run)) }

func place(t *testing.T, root, path, text string) {
	t.Helper()
	path = filepath.Join(root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestUnitFilesOfGuides(t *testing.T) {
	root := t.TempDir()
	place(t, root, "/usr/lib/systemd/system/etcd.service", `[Unit]
Description=Etcd Server
[Service]
Type=notify
Environment=NODE_NAME=master1
Environment="ARGS=--a=1 --b=2" 'C=three'
EnvironmentFile=-/etc/none
EnvironmentFile=/etc/etcd.conf
WorkingDirectory=/var/lib/etcd/
# ExecStart=/no
ExecStart=/usr/bin/etcd \
        --name=${NODE_NAME} \
        $ARGS --dir=${ETCD_DIR}/x '--q=a b' --price=$5
Restart=on-failure
RestartSec=5
[Install]
WantedBy=multi-user.target
`)
	place(t, root, "/etc/etcd.conf", "# comment\nETCD_DIR=\"/data\" # trailing\nETCD_EMPTY=\n")
	u, err := loadUnit(root, "etcd.service")
	if err != nil {
		t.Fatal(err)
	}
	argv, _ := u.command(u.Start)
	want := []string{"/usr/bin/etcd", "--name=master1", "--a=1", "--b=2", "--dir=/data/x", "--q=a b", "--price=$5"}
	if !slices.Equal(argv, want) {
		t.Errorf("got %q, want %q", argv, want)
	}
	if u.Kind != "notify" || u.Restart != "on-failure" || u.RestartSec != 5*time.Second || u.Dir != "/var/lib/etcd/" || u.Description != "Etcd Server" || !slices.Equal(u.WantedBy, []string{"multi-user.target"}) {
		t.Errorf("%+v", u)
	}

	// Drop-ins are laid over it, and an administrator's file goes first.
	place(t, root, "/etc/systemd/system/etcd.service.d/10-start.conf", "[Service]\nExecStart=\nExecStart=/bin/other $EXTRA\n")
	place(t, root, "/etc/systemd/system/etcd.service.d/20-extra.conf", "[Service]\nEnvironment=\"EXTRA=--x --y\"\n")
	if u, err = loadUnit(root, "etcd"); err != nil {
		t.Fatal(err)
	}
	if argv, _ := u.command(u.Start); !slices.Equal(argv, []string{"/bin/other", "--x", "--y"}) {
		t.Errorf("with drop-ins: %q", argv)
	}
	place(t, root, "/etc/systemd/system/etcd.service", "[Service]\nExecStart=-/bin/own\n")
	if u, err = loadUnit(root, "etcd"); err != nil || u.Kind != "simple" {
		t.Errorf("the administrator's: %+v, %v", u, err)
	}
}

func TestUnitsThatAreWrong(t *testing.T) {
	root := t.TempDir()
	place(t, root, "/etc/systemd/system/idle.service", "[Service]\nType=notify\n")
	place(t, root, "/etc/systemd/system/lost.service", "[Service]\nEnvironmentFile=/etc/none\nExecStart=/bin/true\n")
	for name, want := range map[string]string{"none": "Unit none.service not found.", "idle": "has no ExecStart=", "lost": "/etc/none"} {
		if _, err := loadUnit(root, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}
