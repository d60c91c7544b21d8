package etcd_test

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/sampan-dev/sampan/storage/etcd"
)

func TestStatusOfMember(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + l.Addr().String()
	l.Close()
	_, stop := member(t, etcd.Config{DataDir: t.TempDir(), NoFsync: true, ListenClient: []string{url}, AdvertiseClient: []string{url}, QuotaBytes: 64 << 20})
	t.Cleanup(stop)
	m, err := etcd.OpenMembers([]string{url}, etcd.TLS{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	st, err := m.Status(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size == 0 || !st.Leader || st.Learner || fmt.Sprint(st.Alarms) != "[]" {
		t.Errorf("status of a member that is well: %+v", st)
	}
	if st.Quota != 64<<20 {
		t.Errorf("quota %d", st.Quota)
	}
}
