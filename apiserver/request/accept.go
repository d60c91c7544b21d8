package request

import (
	"net/http"
	"strconv"
	"strings"
)

// Clause is one of those that an Accept header has.
type Clause struct {
	Media  string
	Params map[string]string // all but q
	Q      float64
}

// Clauses reads an Accept header.
func Clauses(header string) []Clause {
	var out []Clause
	for part := range strings.SplitSeq(header, ",") {
		c := Clause{Q: 1}
		for i, p := range strings.Split(part, ";") {
			p = strings.TrimSpace(p)
			if i == 0 {
				c.Media = strings.ToLower(p)
				continue
			}
			k, v, _ := strings.Cut(p, "=")
			if k == "q" {
				if q, err := strconv.ParseFloat(v, 64); err == nil {
					c.Q = q
				}
				continue
			}
			if c.Params == nil {
				c.Params = map[string]string{}
			}
			c.Params[k] = v
		}
		out = append(out, c)
	}
	return out
}

// WantsPretty is upstream's rule for JSON that people read: asked for, or a person
// at a terminal or browser.
func WantsPretty(r *http.Request) bool {
	if r.URL.RawQuery != "" {
		if v, ok := r.URL.Query()["pretty"]; ok {
			b, err := strconv.ParseBool(v[0])
			return v[0] == "" || err != nil || b
		}
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}
