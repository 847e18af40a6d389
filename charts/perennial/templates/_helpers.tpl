{{- define "perennial.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "perennial.account" -}}
{{- .Values.serviceAccount.name | default (include "perennial.name" .) -}}
{{- end -}}

{{- define "perennial.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "perennial.selector" -}}
app.kubernetes.io/name: perennial
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "perennial.labels" -}}
{{ include "perennial.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* What the operator may do in a namespace. No Secrets, and no spec of our own kinds is ever written. */}}
{{- define "perennial.rules" -}}
- apiGroups: [perennial.dev]
  resources: [trainingjobs, modeldeployments, evaluations, promptreleases]
  verbs: [get, list, watch]
# A retraining makes a TrainingJob; its TTL deletes it.
- apiGroups: [perennial.dev]
  resources: [trainingjobs]
  verbs: [create, delete]
- apiGroups: [perennial.dev]
  resources: [trainingjobs/status, modeldeployments/status, evaluations/status, promptreleases/status]
  verbs: [update]
# Where OwnerReferencesPermissionEnforcement is on, children may only block the deletion of owners whose finalizers we may set.
- apiGroups: [perennial.dev]
  resources: [trainingjobs/finalizers, modeldeployments/finalizers, evaluations/finalizers, promptreleases/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, watch, create, patch, delete]
# Profiles of models and frozen copies are made once and never changed; what drift windows and predictions are compared with is written on.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods, persistentvolumeclaims]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
# spec.autoscaling of a ModelDeployment.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
# spec.route of a ModelDeployment, where the Gateway API is installed.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
# Each gateway reads releases, revisions and endpoints of its namespace, which the rules above allow us to grant, and nothing else.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, create, patch]
{{- end -}}
