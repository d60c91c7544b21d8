package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/client"
)

// Each controller speaks as its own account; a token is asked for once, and
// again when the server no longer accepts it.
func TestControllersHaveAccountsOfTheirOwn(t *testing.T) {
	var made, asked int
	accepted := ""
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/api/v1/namespaces/kube-system/serviceaccounts":
			if made++; made > 1 {
				w.WriteHeader(http.StatusConflict)
				_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"AlreadyExists","code":409}`))
				return
			}
			_, _ = w.Write([]byte(`{"kind":"ServiceAccount","apiVersion":"v1","metadata":{"name":"loop"}}`))
		case r.URL.Path == "/api/v1/namespaces/kube-system/serviceaccounts/loop/token":
			asked++
			accepted = "Bearer token" + string(rune('0'+asked))
			_ = json.NewEncoder(w).Encode(&authenticationv1.TokenRequest{
				TypeMeta: metav1.TypeMeta{APIVersion: "authentication.k8s.io/v1", Kind: "TokenRequest"},
				Status:   authenticationv1.TokenRequestStatus{Token: accepted[len("Bearer "):], ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))},
			})
		case r.Header.Get("Authorization") != accepted || accepted == "":
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Unauthorized","code":401}`))
		default:
			_, _ = w.Write([]byte(`{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"c"}}`))
		}
	}))
	defer s.Close()
	base := &rest.Config{Host: s.URL}
	own, err := client.FromREST(base)
	if err != nil {
		t.Fatal(err)
	}
	a := newAccounts(base, own)
	if a.as("system:kube-controller-manager") != client.Interface(own) {
		t.Error("who is no account is somebody else")
	}
	maps := client.Of[corev1.ConfigMap](a.as("system:serviceaccount:kube-system:loop"), "ns")
	for range 3 {
		if _, err := maps.Get(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
	}
	if made != 1 || asked != 1 {
		t.Errorf("account made %d times, token asked for %d times", made, asked)
	}
	accepted = "another" // the account was deleted
	if _, err := maps.Get(t.Context(), "c"); err == nil {
		t.Error("an old token was accepted")
	}
	if _, err := maps.Get(t.Context(), "c"); err != nil || asked != 2 {
		t.Errorf("afterwards: %v, asked %d times", err, asked)
	}
}
