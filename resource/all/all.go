// Package all lists every kind the API server has.
//
// Job: the one list, in order.
//
// Not its job: what a kind is: see its room.
//
// Invariants: a kind is listed once.
package all

import (
	"slices"

	"github.com/sampan-dev/sampan/resource"
	"github.com/sampan-dev/sampan/resource/accessreview"
	"github.com/sampan-dev/sampan/resource/admissionregistration"
	"github.com/sampan-dev/sampan/resource/apiservice"
	"github.com/sampan-dev/sampan/resource/certificatesigningrequest"
	"github.com/sampan-dev/sampan/resource/componentstatus"
	"github.com/sampan-dev/sampan/resource/configmap"
	"github.com/sampan-dev/sampan/resource/controllerrevision"
	"github.com/sampan-dev/sampan/resource/cronjob"
	"github.com/sampan-dev/sampan/resource/csidriver"
	"github.com/sampan-dev/sampan/resource/csinode"
	"github.com/sampan-dev/sampan/resource/csistoragecapacity"
	"github.com/sampan-dev/sampan/resource/customresourcedefinition"
	"github.com/sampan-dev/sampan/resource/daemonset"
	"github.com/sampan-dev/sampan/resource/deployment"
	"github.com/sampan-dev/sampan/resource/device"
	"github.com/sampan-dev/sampan/resource/endpoints"
	"github.com/sampan-dev/sampan/resource/endpointslice"
	"github.com/sampan-dev/sampan/resource/event"
	"github.com/sampan-dev/sampan/resource/flowschema"
	"github.com/sampan-dev/sampan/resource/horizontalpodautoscaler"
	"github.com/sampan-dev/sampan/resource/ingress"
	"github.com/sampan-dev/sampan/resource/ingressclass"
	"github.com/sampan-dev/sampan/resource/ipaddress"
	"github.com/sampan-dev/sampan/resource/job"
	"github.com/sampan-dev/sampan/resource/lease"
	"github.com/sampan-dev/sampan/resource/limitrange"
	"github.com/sampan-dev/sampan/resource/namespace"
	"github.com/sampan-dev/sampan/resource/networkpolicy"
	"github.com/sampan-dev/sampan/resource/node"
	"github.com/sampan-dev/sampan/resource/persistentvolume"
	"github.com/sampan-dev/sampan/resource/persistentvolumeclaim"
	"github.com/sampan-dev/sampan/resource/pod"
	"github.com/sampan-dev/sampan/resource/podcertificate"
	"github.com/sampan-dev/sampan/resource/poddisruptionbudget"
	"github.com/sampan-dev/sampan/resource/podtemplate"
	"github.com/sampan-dev/sampan/resource/priorityclass"
	"github.com/sampan-dev/sampan/resource/prioritylevelconfiguration"
	"github.com/sampan-dev/sampan/resource/rbac"
	"github.com/sampan-dev/sampan/resource/replicaset"
	"github.com/sampan-dev/sampan/resource/replicationcontroller"
	"github.com/sampan-dev/sampan/resource/resourcequota"
	"github.com/sampan-dev/sampan/resource/runtimeclass"
	"github.com/sampan-dev/sampan/resource/secret"
	"github.com/sampan-dev/sampan/resource/service"
	"github.com/sampan-dev/sampan/resource/serviceaccount"
	"github.com/sampan-dev/sampan/resource/servicecidr"
	"github.com/sampan-dev/sampan/resource/statefulset"
	"github.com/sampan-dev/sampan/resource/storageclass"
	"github.com/sampan-dev/sampan/resource/storageversionmigration"
	"github.com/sampan-dev/sampan/resource/tokenreview"
	"github.com/sampan-dev/sampan/resource/volumeattachment"
	"github.com/sampan-dev/sampan/resource/volumeattributesclass"
)

// Kinds is every kind, group by group.
func Kinds() []resource.Kind {
	return slices.Concat(core(), apps(), batch(), network(), volumes(), device.Kinds(), access(), podcertificate.Kinds(), admissionregistration.Kinds(), others())
}

func core() []resource.Kind {
	return []resource.Kind{
		namespace.Kind(),
		node.Kind(),
		pod.Kind(),
		podtemplate.Kind(),
		replicationcontroller.Kind(),
		service.Kind(),
		endpoints.Kind(),
		event.Kind(),
		persistentvolume.Kind(),
		persistentvolumeclaim.Kind(),
		configmap.Kind(),
		secret.Kind(),
		serviceaccount.Kind(),
		limitrange.Kind(),
		resourcequota.Kind(),
		componentstatus.Kind(),
	}
}

func apps() []resource.Kind {
	return []resource.Kind{
		deployment.Kind(),
		replicaset.Kind(),
		statefulset.Kind(),
		daemonset.Kind(),
		controllerrevision.Kind(),
	}
}

func batch() []resource.Kind {
	return []resource.Kind{
		job.Kind(),
		cronjob.Kind(),
		horizontalpodautoscaler.Kind(),
	}
}

func network() []resource.Kind {
	return []resource.Kind{
		ingress.Kind(),
		ingressclass.Kind(),
		networkpolicy.Kind(),
		servicecidr.Kind(),
		ipaddress.Kind(),
	}
}

func volumes() []resource.Kind {
	return []resource.Kind{
		storageclass.Kind(),
		volumeattachment.Kind(),
		csidriver.Kind(),
		csinode.Kind(),
		csistoragecapacity.Kind(),
		volumeattributesclass.Kind(),
	}
}

// access is who may do what, and who leads.
func access() []resource.Kind {
	return slices.Concat(
		rbac.Kinds(),
		tokenreview.Kinds(),
		accessreview.Kinds(),
		[]resource.Kind{
			certificatesigningrequest.Kind(),
			lease.Kind(),
			apiservice.Kind(),
		},
	)
}

func others() []resource.Kind {
	return []resource.Kind{
		customresourcedefinition.Kind(),
		endpointslice.Kind(),
		poddisruptionbudget.Kind(),
		priorityclass.Kind(),
		runtimeclass.Kind(),
		storageversionmigration.Kind(),
		flowschema.Kind(),
		prioritylevelconfiguration.Kind(),
	}
}
