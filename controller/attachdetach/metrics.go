package attachdetach

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/controller"
)

// totals counts the volumes of all nodes, by driver.
type totals struct {
	volumes, used *prometheus.GaugeVec
	desired       map[string]map[string]int // by node and plugin
	actual        map[string]map[string]int
}

func newTotals(m *controller.Metrics) *totals {
	return &totals{
		volumes: m.Gauges(prometheus.GaugeOpts{Name: "attachdetach_controller_total_volumes", Help: "Number of volumes in A/D Controller"}, "plugin_name", "state"),
		used:    m.Gauges(prometheus.GaugeOpts{Name: "storage_count_attachable_volumes_in_use", Help: "Measure number of volumes in use"}, "node", "volume_plugin"),
		desired: map[string]map[string]int{}, actual: map[string]map[string]int{},
	}
}

// set takes in a node's volumes.
func (t *totals) set(node string, v *view) {
	if len(v.wants)+len(v.has)+len(t.desired[node])+len(t.actual[node]) == 0 {
		return // most nodes
	}
	swap(t.desired, node, slices.Collect(maps.Keys(v.wants)))
	swap(t.actual, node, slices.Collect(maps.Keys(v.has)))
	t.volumes.Reset()
	for state, all := range map[string]map[string]map[string]int{"desired_state_of_world": t.desired, "actual_state_of_world": t.actual} {
		for _, of := range all {
			for plugin, n := range of {
				t.volumes.WithLabelValues(plugin, state).Add(float64(n))
			}
		}
	}
	t.used.DeletePartialMatch(prometheus.Labels{"node": node})
	for plugin, n := range t.desired[node] {
		t.used.WithLabelValues(node, plugin).Set(float64(n))
	}
}

func swap(all map[string]map[string]int, node string, names []corev1.UniqueVolumeName) {
	delete(all, node)
	for _, name := range names {
		if all[node] == nil {
			all[node] = map[string]int{}
		}
		driver, _, _ := strings.Cut(strings.TrimPrefix(string(name), "kubernetes.io/csi/"), "^")
		all[node]["kubernetes.io/csi:"+driver]++
	}
}
