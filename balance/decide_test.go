package balance

import (
	"slices"
	"strings"
	"testing"
)

func TestOrder(t *testing.T) {
	for _, c := range []struct {
		name, prefer, want string
		list               []View
	}{
		{"fewest connections", "", "b a c", []View{{"a", Ready, 2}, {"b", Ready, 0}, {"c", Ready, 5}}},
		{"names where all is equal", "", "a b", []View{{"b", Ready, 1}, {"a", Ready, 1}}},
		{"one's own first", "c", "c a b", []View{{"a", Ready, 0}, {"b", Ready, 1}, {"c", Ready, 9}}},
		{"one's own not when it is not ready", "c", "a b c", []View{{"a", Ready, 0}, {"b", Ready, 1}, {"c", Unready, 0}}},
		{"who was not asked before who refuses", "", "a c b", []View{{"a", Unknown, 3}, {"b", Down, 0}, {"c", Unready, 0}}},
		{"nobody", "", "", nil},
	} {
		if got := strings.Join(Order(c.list, c.prefer), " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAbandoned(t *testing.T) {
	for _, c := range []struct {
		name string
		list []View
		want []string
	}{
		{"all well", []View{{"a", Ready, 1}, {"b", Ready, 1}}, nil},
		{"one died", []View{{"a", Down, 1}, {"b", Ready, 1}}, []string{"a"}},
		{"one cannot serve all", []View{{"a", Unready, 1}, {"b", Ready, 1}}, []string{"a"}},
		{"nobody is better", []View{{"a", Down, 1}, {"b", Down, 1}}, nil},
		{"who answers is better than who does not", []View{{"a", Down, 1}, {"b", Unready, 1}, {"c", Unready, 1}}, []string{"a"}},
		{"not asked yet is no reason", []View{{"a", Unknown, 1}, {"b", Unready, 1}, {"c", Ready, 1}}, []string{"b"}},
	} {
		if got := Abandoned(c.list); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
