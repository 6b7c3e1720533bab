{{/* Labels of an object; the argument is the program it belongs to. */}}
{{- define "spire.labels" -}}
app.kubernetes.io/name: {{ . }}
app.kubernetes.io/part-of: spire
{{- end }}

{{/*
The name of an object of the whole cluster; the arguments are the name without a
class, and the chart's root.
*/}}
{{- define "spire.clusterName" -}}
{{ .name }}{{ with .root.Values.class }}-{{ . }}{{ end }}
{{- end }}

{{/* What no container of this chart needs, it does not get. */}}
{{- define "spire.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/*
Somebody's text as a string of HCL, which takes "${" for the start of an
interpolation.
*/}}
{{- define "spire.text" -}}
{{ . | quote | replace "$" "\\x24" }}
{{- end }}

{{/*
The configuration of the controller manager of a cluster; the arguments are the name of
the cluster, the namespace there and the class of the resources that it serves, the port of
its health, whether the cluster is another one than the server's, whether it is there for a
nested server, and the chart's root.

A manager without a prefix deletes each entry that it has not made
(pkg/spireentry/reconciler.go). So where there are several each has a prefix of its own,
and the server's own deletes those without any: what it made itself before there were
several, and, as a manager that is alone does, what is made by hand. Where the server's own
is given a prefix, it deletes nothing of others.

A manager that is there for a nested server makes its entry, so it must not ignore the
namespaces of servers.
*/}}
{{- define "spire.managerConfig" -}}
apiVersion: spire.spiffe.io/v1alpha1
kind: ControllerManagerConfig
clusterName: {{ .cluster | quote }}
clusterDomain: cluster.local
trustDomain: {{ .root.Values.trustDomain | quote }}
spireServerSocketPath: /run/spire/private/api.sock
{{- if not .remote }}
validatingWebhookConfigurationName: {{ include "spire.clusterName" (dict "name" "spire-controller-manager-webhook" "root" .root) }}
{{- end }}
{{- with .class }}
className: {{ . | quote }}
{{- end }}
{{- $given := and (not .remote) .root.Values.entryIDPrefix }}
{{- if $given }}
entryIDPrefix: {{ $given | quote }}
{{- else if .root.Values.members }}
entryIDPrefix: {{ .cluster | quote }}
{{- end }}
{{- if .remote }}
reconcile:
  clusterSPIFFEIDs: true
  clusterFederatedTrustDomains: false
  clusterStaticEntries: false
{{- else }}
{{- if .root.Values.relationshipsByAPI }}
reconcile:
  clusterSPIFFEIDs: true
  clusterFederatedTrustDomains: false
  clusterStaticEntries: true
{{- end }}
{{- if and .root.Values.members (not $given) }}
entryIDPrefixCleanup: ""
{{- end }}
{{- end }}
ignoreNamespaces:
  - ^kube-
  - ^local-path-storage$
  - ^metallb-system$
  {{- if not .downstream }}
  - ^spire-system(-[0-9]+)?$
  {{- end }}
  {{- if or .downstream .root.Values.upstream }}
  - ^spire-upstream(-[0-9]+)?$
  {{- end }}
# Nanoseconds. It misses what changes while it is at work, and finds that when it
# looks again: after 10 s by default.
gcInterval: 2000000000
logLevel: {{ .root.Values.logLevel }}
{{- if gt (int (default 1 .root.Values.replicas)) 1 }}
leaderElection:
  leaderElect: true
  resourceName: spire-controller-manager
  resourceNamespace: {{ .namespace }}
{{- end }}
health:
  healthProbeBindAddress: 0.0.0.0:{{ .health }}
metrics:
  bindAddress: "0"
{{- end }}

{{/*
Probes over HTTP; the arguments are a path and a named port. Asked every second
until the program is up, because bring-up waits for it; seldom afterwards,
because an idle lab should be idle, but not so seldom that kubelet, which puts a
container's first probe off by up to a period while kubelet itself is younger than
that, holds up a bring-up (pkg/kubelet/prober/worker.go). There is no liveness
probe: a program that hangs is what a scenario wants to see, not to have restarted
behind its back.
*/}}
{{- define "spire.probes" -}}
startupProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 1
  failureThreshold: 600
readinessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 5
  failureThreshold: 2
{{- end }}
