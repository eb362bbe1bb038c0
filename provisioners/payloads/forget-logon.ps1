# Before the deprovision script: what the answer file left behind that no connection needs. Sysprep must not meet it.
$aibWinlogon = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\Winlogon'
Set-ItemProperty -Path $aibWinlogon -Name AutoAdminLogon -Value '0'
foreach ($aibName in 'DefaultPassword', 'DefaultUserName', 'DefaultDomainName', 'AutoLogonCount') {
    Remove-ItemProperty -Path $aibWinlogon -Name $aibName -ErrorAction SilentlyContinue
}
foreach ($aibFile in "$env:SystemRoot\Panther\unattend.xml", "$env:SystemRoot\Panther\Unattend\unattend.xml") {
    if (Test-Path -Path $aibFile) { Remove-Item -Path $aibFile -Force }
}
