package etcdctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program is the variable that makes the test binary the program it names.
const program = "TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(program) {
	case "etcdctl":
		os.Exit(Main(context.Background(), os.Args[1:]))
	case "etcdutl":
		os.Exit(UtlMain(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// call runs a program with variables before its name.
func call(t *testing.T, line ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	for i, w := range line {
		if !strings.Contains(w, "=") || strings.HasPrefix(w, "-") {
			cmd.Env = append(os.Environ(), append(line[:i:i], program+"="+w)...)
			cmd.Args = append(cmd.Args, line[i+1:]...)
			break
		}
	}
	text, err := cmd.CombinedOutput()
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode(), string(text)
	} else if err != nil {
		t.Fatal(err)
	}
	return 0, string(text)
}

func TestFormOfALine(t *testing.T) {
	for _, c := range []struct {
		api, line string
		want      form
	}{
		{"", "get name", thirdForm}, {"", "put a b", thirdForm}, {"", "member list", thirdForm}, {"", "", thirdForm}, {"", "--help", thirdForm},
		{"", "set name x", secondForm}, {"", "ls", secondForm}, {"", "cluster-health", secondForm}, {"", "mkdir /a", secondForm},
		{"", "--endpoints http://x set a b", secondForm}, {"", "--endpoints set get a", thirdForm}, {"", "--endpoints=http://x get a", thirdForm},
		{"", "--ca-file /ca.pem member list", secondForm}, {"", "-ca-file=/ca.pem get a", secondForm}, {"", "-C http://x get a", secondForm},
		{"", "-w json get set", thirdForm}, {"", "-o json get a", secondForm}, {"", "--no-sync get a", secondForm}, {"", "--debug get a", thirdForm},
		{"", "-- set a b", secondForm}, {"", "get --prefix set", thirdForm}, {"", "--cacert ca --cert c --key k get a", thirdForm},
		{"2", "get name", secondForm}, {"3", "set a b", thirdForm}, {"3", "--ca-file x get a", thirdForm},
	} {
		if got, err := formOf(c.api, strings.Fields(c.line)); err != nil || got != c.want {
			t.Errorf("ETCDCTL_API=%s etcdctl %s: form %d, %v, want %d", c.api, c.line, got, err, c.want)
		}
	}
	if _, err := formOf("4", nil); err == nil || err.Error() != `ETCDCTL_API "4": want 2 or 3, or none` {
		t.Errorf("a version that is not: %v", err)
	}
}

// server answers as an etcd with keys of the second version does, and notes
// what it was asked.
func server(t *testing.T, answers map[string]string) (string, func() string) {
	var asked string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		asked = r.Method + " " + r.URL.RequestURI() + " " + r.PostForm.Encode()
		text, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		var e apiError
		if json.Unmarshal([]byte(text), &e) == nil && e.Code != 0 {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintln(w, text)
	}))
	t.Cleanup(s.Close)
	return s.URL, func() string { return strings.TrimSpace(asked) }
}

func TestSecondVersion(t *testing.T) {
	name := `{"action":"get","node":{"key":"/name","value":"lambert","modifiedIndex":5,"createdIndex":5}}`
	dir := `{"action":"get","node":{"key":"/d","dir":true,"nodes":[{"key":"/d/a","value":"1"},{"key":"/d/b","dir":true,"nodes":[{"key":"/d/b/c","value":"2"}]}]}}`
	url, asked := server(t, map[string]string{
		"GET /v2/keys/name": name, "PUT /v2/keys/name": strings.Replace(name, "get", "set", 1), "POST /v2/keys/q": name,
		"DELETE /v2/keys/name": `{"action":"delete","node":{"key":"/name"},"prevNode":{"key":"/name","value":"lambert"}}`,
		"DELETE /v2/keys/d":    `{"action":"delete","node":{"key":"/d","dir":true},"prevNode":{"key":"/d","dir":true}}`,
		"GET /v2/keys/d":       dir, "PUT /v2/keys/d": dir, "GET /v2/keys/a b": name,
		"GET /v2/keys/no":        `{"errorCode":100,"message":"Key not found","cause":"/no","index":7}`,
		"GET /v2/members":        `{"members":[{"id":"1","name":"m1","peerURLs":["http://p"],"clientURLs":["http://c"]},{"id":"2","name":"","peerURLs":["http://q"],"clientURLs":[]}]}`,
		"GET /v2/members/leader": `{"id":"1","name":"m1"}`,
	})
	for _, c := range []struct {
		line, out string
		code      int
		asked     string
	}{
		{line: "get name", out: "lambert\n", asked: "GET /v2/keys/name"},
		{line: "get /name/ --quorum", out: "lambert\n", asked: "GET /v2/keys/name?quorum=true"},
		{line: "-o extended get name", out: "Key: /name\nCreated-Index: 5\nModified-Index: 5\nTTL: 0\nIndex: 0\n\nlambert\n"},
		{line: "set name lambert --ttl 60", out: "lambert\n", asked: "PUT /v2/keys/name ttl=60&value=lambert"},
		{line: "set name lambert --swap-with-value x --swap-with-index 3", out: "lambert\n", asked: "PUT /v2/keys/name prevIndex=3&prevValue=x&value=lambert"},
		{line: "mk name lambert", out: "lambert\n", asked: "PUT /v2/keys/name prevExist=false&value=lambert"},
		{line: "mk --in-order q x", out: "lambert\n", asked: "POST /v2/keys/q value=x"},
		{line: "update name lambert", out: "lambert\n", asked: "PUT /v2/keys/name prevExist=true&value=lambert"},
		{line: "rm name --with-index 4", out: "PrevNode.Value: lambert\n", asked: "DELETE /v2/keys/name?prevIndex=4"},
		{line: "rm -r d", asked: "DELETE /v2/keys/d?recursive=true"},
		{line: "rmdir d", asked: "DELETE /v2/keys/d?dir=true"},
		{line: "mkdir d", asked: "PUT /v2/keys/d dir=true&prevExist=false"},
		{line: "setdir d --ttl 9", asked: "PUT /v2/keys/d dir=true&ttl=9"},
		{line: "updatedir d", asked: "PUT /v2/keys/d dir=true&prevExist=true"},
		{line: "ls -r -p d", out: "/d/a\n/d/b/\n/d/b/c\n", asked: "GET /v2/keys/d?recursive=true"},
		{line: "get d", out: "/d: is a directory\n", code: 1},
		{line: "get no", out: "Error:  100: Key not found (/no) [7]\n", code: 4},
		{line: "-o json get no", out: `{"errorCode":100,"message":"Key not found","cause":"/no","index":7}` + "\n", code: 4},
		{line: "member list", out: "1: name=m1 peerURLs=http://p clientURLs=http://c isLeader=true\n2[unstarted]: peerURLs=http://q\n"},
		{line: "member remove 9", out: "Couldn't find a member in the cluster with an ID of 9.\n", code: 1},
		{line: "get", out: "Error:  key required\n", code: 1},
		{line: "backup", out: "Error:  a backup of the second version's files is not made any more; `etcdctl snapshot save FILE` keeps the keys of both versions\n", code: 1},
		{line: "get elsewhere", out: "Error:  the etcd at " + strings.TrimPrefix(url, "http://") + " does not serve /v2/keys/elsewhere: start it with --enable-v2, or use the third version's commands (ETCDCTL_API=3 etcdctl get, put, …)\n", code: 4},
	} {
		var out bytes.Buffer
		code := secondMain(t.Context(), append([]string{"--endpoints", url}, strings.Fields(c.line)...), &out, &out)
		if code != c.code || out.String() != c.out {
			t.Errorf("etcdctl %s: code %d, %q\nwant %d, %q", c.line, code, out.String(), c.code, c.out)
		}
		if c.asked != "" && asked() != c.asked {
			t.Errorf("etcdctl %s asks %s, want %s", c.line, asked(), c.asked)
		}
	}
	var out bytes.Buffer
	if code := secondMain(t.Context(), []string{"--endpoints", "http://127.0.0.1:1", "ls"}, &out, &out); code != 2 ||
		!strings.Contains(out.String(), "client: etcd cluster is unavailable or misconfigured; error #0: ") || !strings.Contains(out.String(), "--endpoints (or ETCDCTL_ENDPOINTS) says where") {
		t.Errorf("nobody there: %d %s", code, out.String())
	}
}

// The programs as a shell calls them.
func TestThePrograms(t *testing.T) {
	for _, c := range []struct {
		line []string
		code int
		want string
	}{
		{[]string{"ETCDCTL_API=3", "etcdctl", "version"}, 0, "etcdctl version: 3.7.3\nAPI version: 3.7\n"},
		{[]string{"ETCDCTL_API=2", "etcdctl", "version"}, 0, "etcdctl version: 3.7.3\nAPI version: 2\n"},
		{[]string{"ETCDCTL_API=1", "etcdctl", "version"}, 1, `ETCDCTL_API "1": want 2 or 3, or none`},
		{[]string{"etcdctl", "get", "a", "--prefx"}, 1, "unknown flag: --prefx; did you mean --prefix?"},
		{[]string{"etcdctl", "putt", "a"}, 1, "Did you mean this?\n\tput"},
		{[]string{"etcdctl", "snapshot", "status", "/nowhere"}, 1, "/nowhere"},
		{[]string{"etcdctl", "snapshot", "restore"}, 128, "snapshot restore requires exactly one argument"},
		{[]string{"etcdctl", "options"}, 0, "--cacert string"},
		{[]string{"etcdutl", "version"}, 0, "etcdutl version: 3.7.3"},
		{[]string{"etcdutl", "snapshot", "status", "/nowhere"}, 1, "/nowhere"},
	} {
		if code, out := call(t, c.line...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: code %d, %s\nwant %d, %s", c.line, code, out, c.code, c.want)
		}
	}
	// Every command explains itself.
	for _, words := range []string{"", "get", "put", "del", "txn", "watch", "compaction", "defrag", "alarm", "alarm list", "alarm disarm", "member", "member add", "member promote",
		"endpoint", "endpoint health", "endpoint status", "endpoint hashkv", "move-leader", "snapshot save", "snapshot restore", "snapshot status", "lease", "lease grant", "user", "role"} {
		if code, out := call(t, append(append([]string{"etcdctl"}, strings.Fields(words)...), "--help")...); code != 0 || !strings.Contains(out, "Usage:") {
			t.Errorf("etcdctl %s --help: code %d, %s", words, code, out)
		}
	}
	if _, err := os.Stat(filepath.Join(".", "default.etcd")); err == nil {
		t.Error("a data directory was made here")
	}
}
