package keys

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const membersPath = "/v2/members"

// member is how the API shows a member.
type member struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	PeerURLs   []string `json:"peerURLs"`
	ClientURLs []string `json:"clientURLs"`
}

func showMember(m *etcdserverpb.Member) member {
	return member{ID: hex(m.ID), Name: m.Name, PeerURLs: append([]string{}, m.PeerURLs...), ClientURLs: append([]string{}, m.ClientURLs...)}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // who has gone needs no answer
}

// complain answers with an error of the members' API.
func complain(w http.ResponseWriter, status int, message string) {
	answer(w, status, map[string]string{"message": message})
}

func (s *Store) serveMembers(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, "GET", "POST", "DELETE", "PUT") {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	c, err := s.client()
	if err != nil {
		complain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	all, err := c.MemberList(ctx)
	if err != nil {
		memberError(w, err, "")
		return
	}
	w.Header().Set("X-Etcd-Cluster-Id", hex(all.Header.ClusterId))
	at := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, membersPath), "/")
	switch r.Method {
	case http.MethodGet:
		s.listMembers(ctx, w, all.Members, at)
	case http.MethodPost:
		addMember(ctx, w, r, c)
	default:
		if at == "" {
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		changeMember(ctx, w, r, c, at)
	}
}

func (s *Store) listMembers(ctx context.Context, w http.ResponseWriter, all []*etcdserverpb.Member, at string) {
	switch at {
	case "":
		list := []member{}
		for _, m := range all {
			list = append(list, showMember(m))
		}
		answer(w, http.StatusOK, map[string]any{"members": list})
	case "leader":
		if st, err := s.status(ctx); err == nil {
			if i := slices.IndexFunc(all, func(m *etcdserverpb.Member) bool { return m.ID == st.Leader }); i >= 0 {
				answer(w, http.StatusOK, showMember(all[i]))
				return
			}
		}
		complain(w, http.StatusServiceUnavailable, "During election")
	default:
		complain(w, http.StatusNotFound, "Not found")
	}
}

// peerURLs reads the body of a request about a member.
func peerURLs(w http.ResponseWriter, r *http.Request) ([]string, bool) {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if kind != "application/json" {
		complain(w, http.StatusUnsupportedMediaType, "Bad Content-Type "+kind+", accept application/json")
		return nil, false
	}
	var body struct {
		PeerURLs []string `json:"peerURLs"`
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err == nil {
		err = json.Unmarshal(text, &body)
	}
	if err == nil && len(body.PeerURLs) == 0 {
		err = errors.New("peerURLs: no valid URLs given")
	}
	for _, u := range body.PeerURLs {
		if p, bad := url.Parse(u); err == nil && (bad != nil || p.Scheme == "" || p.Host == "") {
			err = errors.New("peerURLs: " + strconv.Quote(u) + ": want http://ADDRESS:PORT or https://ADDRESS:PORT")
		}
	}
	if err != nil {
		complain(w, http.StatusBadRequest, err.Error())
		return nil, false
	}
	return body.PeerURLs, true
}

func addMember(ctx context.Context, w http.ResponseWriter, r *http.Request, c *clientv3.Client) {
	peers, ok := peerURLs(w, r)
	if !ok {
		return
	}
	added, err := c.MemberAdd(ctx, peers)
	if err != nil {
		memberError(w, err, "")
		return
	}
	answer(w, http.StatusCreated, showMember(added.Member))
}

func changeMember(ctx context.Context, w http.ResponseWriter, r *http.Request, c *clientv3.Client, at string) {
	id, err := strconv.ParseUint(at, 16, 64)
	if err != nil {
		complain(w, http.StatusNotFound, "No such member: "+at)
		return
	}
	if r.Method == http.MethodDelete {
		_, err = c.MemberRemove(ctx, id)
	} else {
		peers, ok := peerURLs(w, r)
		if !ok {
			return
		}
		_, err = c.MemberUpdate(ctx, id, peers)
	}
	if err != nil {
		memberError(w, err, at)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func memberError(w http.ResponseWriter, err error, id string) {
	switch {
	case errors.Is(err, rpctypes.ErrUserEmpty), errors.Is(err, rpctypes.ErrPermissionDenied):
		complain(w, http.StatusUnauthorized, "Insufficient credentials")
	case errors.Is(err, rpctypes.ErrMemberExist), errors.Is(err, rpctypes.ErrPeerURLExist):
		complain(w, http.StatusConflict, err.Error())
	case errors.Is(err, rpctypes.ErrMemberNotFound):
		complain(w, http.StatusNotFound, "No such member: "+id)
	default:
		complain(w, http.StatusInternalServerError, err.Error())
	}
}

func (s *Store) serveMachines(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, "GET", "HEAD") {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	c, err := s.client()
	if err != nil {
		complain(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	all, err := c.MemberList(ctx)
	if err != nil {
		memberError(w, err, "")
		return
	}
	var urls []string
	for _, m := range all.Members {
		urls = append(urls, m.ClientURLs...)
	}
	slices.Sort(urls)
	_, _ = io.WriteString(w, strings.Join(urls, ", "))
}
