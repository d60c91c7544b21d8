package scheduler

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/kit/clock"
)

func TestProfiles(t *testing.T) {
	for name, c := range map[string]struct {
		text, want string
	}{
		"default": {`{}`, "{default-scheduler {3 2 2 2 1 1 1} false 1 1 false}"},
		"pack": {`{"schedulerName":"pack","pluginConfig":[{"name":"NodeResourcesFit","args":{"scoringStrategy":{"type":"MostAllocated","resources":[{"name":"cpu","weight":3},{"name":"memory","weight":1}]}}}]}`,
			"{pack {3 2 2 2 1 1 1} true 3 1 false}"},
		"weights":          {`{"plugins":{"score":{"disabled":[{"name":"ImageLocality"}],"enabled":[{"name":"NodeAffinity","weight":9}]}}}`, "{default-scheduler {3 9 2 2 1 1 0} false 1 1 false}"},
		"only one":         {`{"plugins":{"score":{"disabled":[{"name":"*"}],"enabled":[{"name":"NodeResourcesFit"}]}}}`, "{default-scheduler {0 0 0 0 1 0 0} false 1 1 false}"},
		"no spreading":     {`{"pluginConfig":[{"name":"PodTopologySpread","args":{"defaultingType":"List"}}]}`, "{default-scheduler {3 2 2 2 1 1 1} false 1 1 true}"},
		"usual arguments":  {`{"pluginConfig":[{"name":"InterPodAffinity","args":{"kind":"InterPodAffinityArgs","hardPodAffinityWeight":1}}]}`, "{default-scheduler {3 2 2 2 1 1 1} false 1 1 false}"},
		"other arguments":  {`{"pluginConfig":[{"name":"InterPodAffinity","args":{"hardPodAffinityWeight":5}}]}`, "error: pluginConfig: InterPodAffinity: hardPodAffinityWeight: Unsupported value: 5"},
		"foreign plugin":   {`{"plugins":{"score":{"enabled":[{"name":"Coscheduling"}]}}}`, `error: plugins.score.enabled: unknown plugin "Coscheduling"`},
		"without a filter": {`{"plugins":{"filter":{"disabled":[{"name":"NodePorts"}]}}}`, `error: plugins.filter.disabled: "NodePorts" cannot be disabled`},
	} {
		t.Run(name, func(t *testing.T) {
			var f ProfileFile
			if err := json.Unmarshal([]byte(c.text), &f); err != nil {
				t.Fatal(err)
			}
			p, err := f.Profile()
			got := fmt.Sprint(p)
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	twice := Config{Profiles: []Profile{DefaultProfile("a"), DefaultProfile("a")}}
	if err := twice.Check(); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("two profiles of one name: %v", err)
	}
}

// TestPacking: one profile spreads pods over nodes, the other fills them.
func TestPacking(t *testing.T) {
	pack := DefaultProfile("pack")
	pack.Pack, pack.Weights.Balance = true, 0
	spread := DefaultProfile("spread")
	for _, p := range []Profile{pack, spread} {
		c := newCluster()
		c.profiles = map[string]*Profile{p.Name: &p}
		for i := range 3 {
			c.setNode(testNode(fmt.Sprint("n", i), "4"))
		}
		used := map[string]int{}
		for i := range 6 {
			pod := testPod(fmt.Sprint("p", i), "500m")
			pod.Spec.SchedulerName = p.Name
			info := newInfo(pod)
			n, _ := c.place(info, nil, clock.Rand(1))
			c.putPod(info, n.obj.Name)
			used[n.obj.Name]++
		}
		if want := map[string]int{"pack": 1, "spread": 3}[p.Name]; len(used) != want {
			t.Errorf("%s: pods on %v", p.Name, used)
		}
	}
}
