{{- define "fastn-mcp.name" -}}
{{- $name := ternary .Release.Name (printf "%s-fastn-mcp" .Release.Name) (contains "fastn-mcp" .Release.Name) -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{- define "fastn-mcp.selector" -}}
app.kubernetes.io/name: fastn-mcp
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fastn-mcp.labels" -}}
{{ include "fastn-mcp.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "fastn-mcp.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end -}}
{{- end -}}
{{- end }}
