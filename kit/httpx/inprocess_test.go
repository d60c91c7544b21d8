package httpx

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

type whoKey struct{}

func TestInProcess(t *testing.T) {
	ended := make(chan struct{})
	c := http.Client{Transport: InProcess{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/echo":
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("X-Who", fmt.Sprint(r.Context().Value(whoKey{})))
				w.WriteHeader(http.StatusTeapot)
				w.Write(body)
			case "/endless":
				defer close(ended)
				for n := 0; ; n++ {
					if _, err := fmt.Fprintln(w, n); err != nil {
						return
					}
					w.(http.Flusher).Flush()
				}
			}
		}),
		Context: func(ctx context.Context) context.Context { return context.WithValue(ctx, whoKey{}, "me") },
	}}
	resp, err := c.Post("https://here/echo?a=b", "text/plain", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot || string(body) != "hello" || resp.Header.Get("X-Who") != "me" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	if resp, err = c.Get("https://here/nothing"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("an answer of nothing: %v %v", resp, err)
	}
	resp, err = c.Get("https://here/endless")
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for n := range 3 {
		if !lines.Scan() || lines.Text() != fmt.Sprint(n) {
			t.Errorf("line %d: %q", n, lines.Text())
		}
	}
	resp.Body.Close()
	<-ended // the handler learns that nobody reads
}
