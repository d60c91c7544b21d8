package fairness

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sampan-dev/sampan/apiserver/request"
)

// Debug serves the dumps, by path.
func (c *Controller) Debug() map[string]http.Handler {
	const base = "/debug/api_priority_and_fairness/"
	dump := func(fn func(w io.Writer, r *http.Request)) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			t := tabwriter.NewWriter(w, 8, 0, 1, ' ', 0)
			fn(t, r)
			t.Flush()
		})
	}
	return map[string]http.Handler{
		base + "dump_priority_levels": dump(c.dumpLevels),
		base + "dump_queues":          dump(c.dumpQueues),
		base + "dump_requests":        dump(c.dumpRequests),
	}
}

// row writes values with commas and tabs between them.
func row(w io.Writer, values ...any) {
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = fmt.Sprint(v)
	}
	fmt.Fprintln(w, strings.Join(s, ",\t"))
}

// each calls fn for every level, by name, under its lock.
func (c *Controller) each(fn func(*level)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := make([]string, 0, len(c.levels))
	for n := range c.levels {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		l := c.levels[n]
		l.mu.Lock()
		fn(l)
		l.mu.Unlock()
	}
}

func (c *Controller) dumpLevels(w io.Writer, _ *http.Request) {
	row(w, "PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests",
		"DispatchedRequests", "RejectedRequests", "TimedoutRequests", "CancelledRequests")
	c.each(func(l *level) {
		row(w, l.name, len(l.lining), l.executing == 0 && l.waiting == 0, l.gone, l.waiting, l.executing,
			l.dispatched, l.full+l.limited, l.late, l.cancelled)
	})
}

func (c *Controller) dumpQueues(w io.Writer, _ *http.Request) {
	row(w, "PriorityLevelName", "Index", "PendingRequests", "ExecutingRequests", "SeatsInUse", "NextDispatchR",
		"InitialSeatsSum", "MaxSeatsSum", "TotalWorkSum")
	c.each(func(l *level) {
		for i, q := range l.queues {
			seats, most, total := 0, 0, 0.0
			for _, t := range q.waiting {
				seats += t.work.seats
				most += t.work.width()
				total += guess*float64(t.work.width()) + t.work.extra.Seconds()*float64(t.work.final)
			}
			row(w, l.name, i, len(q.waiting), q.executing, q.seats, fmt.Sprintf("%.8fss", q.next), seats, most, fmt.Sprintf("%.8fss", total))
		}
	})
}

func (c *Controller) dumpRequests(w io.Writer, r *http.Request) {
	details := r.URL.Query().Get("includeRequestDetails") != ""
	head := []any{"PriorityLevelName", "FlowSchemaName", "QueueIndex", "RequestIndexInQueue", "FlowDistingsher", "ArriveTime",
		"InitialSeats", "FinalSeats", "AdditionalLatency", "StartTime"}
	if details {
		head = append(head, "UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource")
	}
	row(w, head...)
	c.each(func(l *level) {
		one := func(queue, index int, t *ticket) {
			values := []any{l.name, t.flows.schema, queue, index, t.flow, t.arrived.UTC().Format(time.RFC3339Nano),
				t.work.seats, t.work.final, t.work.extra, t.started.UTC().Format(time.RFC3339Nano)}
			if details {
				values = append(values, details8(t.user, t.info)...)
			}
			row(w, values...)
		}
		for i, q := range l.queues {
			for k, t := range q.waiting {
				one(i, k, t)
			}
		}
		for t := range l.running.all {
			at := -1
			if t.queue != nil {
				at = t.queue.index
			}
			one(at, -1, t)
		}
	})
}

func details8(user string, i *request.Info) []any {
	return []any{user, i.Verb, i.Path, i.Namespace, i.Name, i.GroupVersion().String(), i.Resource, i.Subresource}
}
