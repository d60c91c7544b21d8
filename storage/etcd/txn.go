package etcd

import (
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/sampan-dev/sampan/storage"
)

// This file is pure: what is asked of etcd and what its answers mean.

func record(kv *mvccpb.KeyValue) *storage.Record {
	return &storage.Record{Key: string(kv.Key), Value: kv.Value, Rev: kv.ModRevision}
}

func getRequest(key string, local bool) *etcdserverpb.RangeRequest {
	return &etcdserverpb.RangeRequest{Key: []byte(key), Serializable: local}
}

// revRequest is the cheapest consistent read: it tells the revision.
func revRequest() *etcdserverpb.RangeRequest {
	return &etcdserverpb.RangeRequest{Key: []byte(compactKey), CountOnly: true}
}

// listRequest asks for o's part of prefix; false when nothing can be in it.
func listRequest(prefix string, o storage.ListOptions) (*etcdserverpb.RangeRequest, bool) {
	r := &etcdserverpb.RangeRequest{Key: []byte(prefix), RangeEnd: prefixEnd(prefix), Limit: int64(o.Limit)}
	if o.After >= prefix && o.After != "" {
		r.Key = []byte(o.After + "\x00")
		if !strings.HasPrefix(o.After, prefix) {
			return r, false
		}
	}
	if len(r.Key) == 0 {
		r.Key = []byte{0}
	}
	if o.Match == storage.AtExact {
		r.Revision = o.Rev
	}
	return r, true
}

// prefixEnd is the key after all that begin with prefix; "\x00" is etcd's
// infinity.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// page reads the answer to listRequest.
func page(resp *etcdserverpb.RangeResponse, o storage.ListOptions) *storage.Page {
	p := &storage.Page{Rev: resp.Header.Revision, More: resp.More}
	if o.Match == storage.AtExact && o.Rev > 0 {
		p.Rev = o.Rev
	}
	p.Records = make([]*storage.Record, len(resp.Kvs))
	for i, kv := range resp.Kvs {
		p.Records[i] = record(kv)
	}
	// Count is of the whole range asked for, at that revision.
	if p.More {
		p.Remaining = resp.Count - int64(len(resp.Kvs))
	}
	return p
}

// writeRequest does op if key is at revision expect (0: is not there), and
// otherwise reads what is.
func writeRequest(key string, expect int64, op *etcdserverpb.RequestOp) *etcdserverpb.TxnRequest {
	t := &etcdserverpb.TxnRequest{
		Compare: []*etcdserverpb.Compare{{
			Result:      etcdserverpb.Compare_EQUAL,
			Target:      etcdserverpb.Compare_MOD,
			Key:         []byte(key),
			TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: expect},
		}},
		Success: []*etcdserverpb.RequestOp{op},
	}
	if expect != 0 {
		t.Failure = []*etcdserverpb.RequestOp{{Request: &etcdserverpb.RequestOp_RequestRange{
			RequestRange: &etcdserverpb.RangeRequest{Key: []byte(key)},
		}}}
	}
	return t
}

func putOp(key string, value []byte, lease int64) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{
		RequestPut: &etcdserverpb.PutRequest{Key: []byte(key), Value: value, Lease: lease},
	}}
}

func deleteOp(key string) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: []byte(key), PrevKv: true},
	}}
}

// failed says why a writeRequest did not write.
func failed(resp *etcdserverpb.TxnResponse) error {
	if len(resp.Responses) == 0 {
		return storage.ErrExists
	}
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return storage.ErrNotFound
	}
	return &storage.ConflictError{Current: record(kvs[0])}
}

// event reads one change. prev is the version before, if known.
func event(e *mvccpb.Event, prev *mvccpb.KeyValue) storage.Event {
	out := storage.Event{Rev: e.Kv.ModRevision, Record: record(e.Kv)}
	if prev != nil {
		out.Prev = record(prev)
	}
	if e.Type == mvccpb.Event_DELETE {
		out.Type = storage.Deleted
		out.Record.Value = nil
		if prev != nil {
			out.Record.Value = prev.Value
		}
	}
	return out
}

// created says that e made its key: there is no version before.
func created(e *mvccpb.Event) bool {
	return e.Type == mvccpb.Event_PUT && e.Kv.CreateRevision == e.Kv.ModRevision
}
