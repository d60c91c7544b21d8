package keys

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sampan-dev/sampan/kit/clock"
)

// expiryPatience is the pause after a failure, and a follower's before it looks
// whether the leader has done the work.
const expiryPatience = 500 * time.Millisecond

// Expire removes what has outlived its time, as long as ctx and the member of
// client last: the leader does, the others only watch.
func (s *Store) Expire(ctx context.Context, client *clientv3.Client, log *slog.Logger) {
	for ctx.Err() == nil {
		pause, err := s.expireNext(ctx, client)
		if err != nil {
			if ctx.Err() == nil {
				log.Debug("keys: expiry", "err", err)
			}
			pause = expiryPatience
		}
		_ = clock.Sleep(ctx, pause) // ended: the loop ends too
	}
}

// expireNext waits until something is due and removes it. It returns how long
// to pause.
func (s *Store) expireNext(ctx context.Context, c *clientv3.Client) (time.Duration, error) {
	first, err := c.Get(ctx, timePrefix, clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly(), clientv3.WithSerializable())
	if err != nil {
		return 0, err
	}
	if len(first.Kvs) == 0 {
		return 0, s.sleep(ctx, c, 0, first.Header.Revision)
	}
	key := string(first.Kvs[0].Key)
	at, p, err := parseTime(key)
	if err != nil {
		return 0, err
	}
	if left := clock.Until(time.Unix(0, at)); left > 0 {
		return 0, s.sleep(ctx, c, left, first.Header.Revision)
	}
	st, err := c.Status(ctx, "")
	if err != nil {
		return 0, err
	}
	if st.Leader != st.Header.MemberId {
		return expiryPatience, nil
	}
	e, err := s.change(ctx, p, func(v *view, now time.Time) (*change, *Error) {
		if v.find(p) != nil || v.self == nil || v.self.Expires != at {
			return nil, nil // renewed since, or gone with its directory
		}
		return gone(p, v, "expire", now), nil
	})
	if err != nil {
		return 0, err
	}
	if e != nil {
		s.stats.note("expire", true)
	}
	_, err = c.Delete(ctx, key)
	return 0, err
}

// sleep returns when d (0 is for ever) is over, or the times have changed.
func (s *Store) sleep(ctx context.Context, c *clientv3.Client, d time.Duration, rev int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := c.Watch(ctx, timePrefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1))
	if d == 0 {
		r, ok := <-changed
		return watchErr(r, ok)
	}
	t := clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case r, ok := <-changed:
		return watchErr(r, ok)
	}
}

func watchErr(r clientv3.WatchResponse, ok bool) error {
	if !ok {
		return errWatchEnded
	}
	return r.Err()
}

func parseTime(key string) (int64, string, error) {
	rest := strings.TrimPrefix(key, timePrefix)
	if len(rest) < 21 {
		return 0, "", fmt.Errorf("keys: %s is no time", key)
	}
	at, err := strconv.ParseInt(rest[:20], 10, 64)
	if err != nil {
		return 0, "", fmt.Errorf("keys: %s: %w", key, err)
	}
	return at, rest[20:], nil
}
