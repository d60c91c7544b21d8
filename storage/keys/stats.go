package keys

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/sampan-dev/sampan/kit/clock"
)

// stats counts what was asked of this member.
type stats struct {
	mu      sync.Mutex
	started time.Time
	leader  uint64    // as last seen
	since   time.Time // when it was first seen to lead
	done    map[string]uint64
	waiting uint64
}

// note counts an answer.
func (s *stats) note(action string, ok bool) {
	name := action + "Success"
	if !ok {
		name = action + "Fail"
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[name]++
}

func (s *stats) wait(by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting += uint64(by)
}

// action is what the statistics call a request.
func (r *request) action() string {
	compare := r.prevIndex > 0 || r.prevValue != ""
	switch {
	case r.method == "GET" || r.method == "HEAD":
		return "gets"
	case r.method == "POST", r.method == "PUT" && r.prevExist != nil && !*r.prevExist:
		return "create"
	case r.method == "DELETE" && compare:
		return "compareAndDelete"
	case r.method == "DELETE":
		return "delete"
	case compare:
		return "compareAndSwap"
	case r.prevExist != nil:
		return "update"
	}
	return "sets"
}

func (s *Store) serveStore(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, "GET") {
		return
	}
	s.stats.mu.Lock()
	out := map[string]uint64{"expireCount": s.stats.done["expireSuccess"], "watchers": s.stats.waiting}
	for _, action := range []string{"gets", "sets", "delete", "update", "create", "compareAndSwap", "compareAndDelete"} {
		for _, how := range []string{"Success", "Fail"} {
			out[action+how] = s.stats.done[action+how]
		}
	}
	s.stats.mu.Unlock()
	answer(w, http.StatusOK, out)
}

// selfStats is what a member says of itself.
type selfStats struct {
	Name       string     `json:"name"`
	ID         string     `json:"id"`
	State      string     `json:"state"`
	StartTime  time.Time  `json:"startTime"`
	LeaderInfo leaderInfo `json:"leaderInfo"`
}

type leaderInfo struct {
	Leader    string    `json:"leader"`
	Uptime    string    `json:"uptime"`
	StartTime time.Time `json:"startTime"`
}

func (s *Store) serveSelf(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, "GET") {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	st, err := s.status(ctx)
	if err != nil {
		complain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	out := selfStats{ID: hex(st.Header.MemberId), State: "StateFollower"}
	if c, err := s.client(); err == nil {
		if all, err := c.MemberList(ctx); err == nil {
			if i := slices.IndexFunc(all.Members, func(m *etcdserverpb.Member) bool { return m.ID == st.Header.MemberId }); i >= 0 {
				out.Name = all.Members[i].Name
			}
		}
	}
	if st.Leader == st.Header.MemberId {
		out.State = "StateLeader"
	}
	s.stats.mu.Lock()
	if s.stats.leader != st.Leader {
		s.stats.leader, s.stats.since = st.Leader, clock.Now()
	}
	out.StartTime = s.stats.started
	out.LeaderInfo = leaderInfo{hex(st.Leader), clock.Since(s.stats.since).String(), s.stats.since}
	s.stats.mu.Unlock()
	answer(w, http.StatusOK, out)
}
